import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Tester } from 'wasmill/testing';
import records from './main.js';

test('only records go on', () => {
  const tester = new Tester(records, { field: 'n' });
  tester.sendAll([['a', '{"n": 2}'], ['a', '{"n": 1}'], ['b', '{"n": 1}'], ['a', '{"n": 3}']]);
  assert.deepEqual(tester.values(), ['{"n": 2}', '{"n": 1}', '{"n": 3}']);
});

test('records outlive an instance', () => {
  const tester = new Tester(records, { field: 'n' });
  tester.send('a', '{"n": 2}');
  tester.restart();
  tester.send('a', '{"n": 1}');
  assert.equal(tester.values().length, 1);
});

test('an event without the number is rejected', () => {
  const tester = new Tester(records, { field: 'n' });
  tester.send('a', '{}');
  assert.deepEqual(tester.rejected(), ['field `n` is missing, expected a number']);
});
