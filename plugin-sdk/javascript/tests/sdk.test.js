import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, Reject, aggregate, decodeText, i64, map, operator, text, u64 } from '../index.js';
import { Tester, WindowTester } from '../testing.js';

const count = operator({
  open(config, setup) {
    this.seen = setup.value('seen', u64);
    this.events = setup.counter('events');
  },
  *event(event) {
    const seen = this.seen.get(0) + 1;
    this.seen.set(seen);
    this.events.add();
    if (event.text() === 'bad') throw new Reject('it is bad');
    yield `${seen}`;
  },
});

test('state outlives an instance, and a rejected event leaves no trace', () => {
  const tester = new Tester(count);
  tester.sendAll([['a', 'x'], ['b', 'x'], ['a', 'bad'], ['a', 'x']]);
  tester.restart();
  tester.send('a', 'x');
  assert.deepEqual(tester.values(), ['1', '1', '2', '3']);
  assert.deepEqual(tester.rejected(), ['it is bad']);
  const [entry] = [...tester.host.entries.values()].filter(({ key }) => key === 'a');
  assert.deepEqual([...entry.value], [3, 0, 0, 0, 0, 0, 0, 0]);
});

const forms = operator({
  outputs: ['out', 'side'],
  *event(event, ctx) {
    switch (event.text()) {
      case 'drop':
        return;
      case 'twice':
        yield event;
        yield 'again';
        return;
      case 'key':
        yield { value: 'keyed', key: 'k2', time: 7 };
        return;
      case 'side':
        ctx.emit('aside', { port: 'side' });
        return;
      default:
        yield event;
    }
  },
});

test('rows come out whatever their form', () => {
  const tester = new Tester(forms);
  tester.sendAll(['a', 'drop', 'b', 'twice', 'key', 'side'].map((value) => ['k', value]), { time: 1 });
  assert.deepEqual(tester.values(), ['a', 'b', 'twice', 'again', 'keyed']);
  assert.deepEqual(tester.values(1), ['aside']);
  assert.deepEqual(tester.out.filter(({ port }) => !port).map(({ time }) => time), [1, 1, 1, 1, 7]);
  tester.sendAll([['k', 'a'], ['k', 'drop'], ['k', 'c']]);
  assert.deepEqual(tester.values().slice(5), ['a', 'c']);
});

test('an exception rejects its event and says where', () => {
  const tester = new Tester(map((event) => event.json().a.b));
  tester.sendAll([['k', '{}'], ['k', '{"a":{"b":"x"}}']]);
  assert.deepEqual(tester.values(), ['x']);
  assert.match(tester.rejected()[0], /^TypeError: .*sdk\.test\.js/);
  assert.equal(tester.log[0][0], 'error');
});

const baskets = operator({
  open(config, setup) {
    this.items = setup.map('items', i64, text);
    this.wait = config.integer('wait', 10);
  },
  event(event, ctx) {
    this.items.set(Number(event.text()), event.text());
    ctx.setTimer(event.time + this.wait, 'close');
  },
  *timer() {
    yield this.items.entries().map(([, value]) => value).join(',');
    this.items.clear();
  },
});

test('maps are sorted and timers fire', () => {
  const tester = new Tester(baskets, { wait: 5 });
  for (const value of ['3', '-1', '20']) tester.send('k', value, { time: 1 });
  tester.watermark(5);
  assert.deepEqual(tester.values(), []);
  tester.watermark(6);
  assert.deepEqual(tester.values(), ['-1,3,20']);
  assert.equal(tester.host.entries.size, 0);
});

test('errors of a configuration name the field', () => {
  for (const [config, expected] of [
    ['{"wait":"x"}', 'config: `wait`: expected an integer, found "x"'],
    ['{"wiat":1}', 'config: `wiat`: unknown field `wiat`, expected `wait`'],
    ['[1]', 'config: expected an object, found [1]'],
  ]) {
    assert.throws(() => new Tester(baskets, config), (error) => error instanceof ConfigError && error.message === expected);
  }
});

test('windows fire', () => {
  const sum = aggregate({
    accumulator: u64,
    start: () => 0,
    fold: (sum, event) => sum + event.json(),
    merge: (into, other) => into + other,
    *finish(pane, sum) {
      yield `${pane.start}..${pane.end}: ${sum}`;
    },
  });
  const tester = new WindowTester(sum, '', 10);
  tester.send(3, 'k', '5');
  tester.send(4, 'k', '6');
  tester.send(4, 'k', 'x');
  tester.watermark(9);
  assert.deepEqual(tester.values(), ['0..10: 11']);
  assert.equal(tester.rejected().length, 1);
});

test('entries of a known version are taken over', () => {
  const counted = operator({
    open(config, setup) {
      const migrate = {
        1: (old) => {
          if (!/^[0-9]+$/.test(decodeText(old))) throw new Error('no number');
          return Number(decodeText(old)) || undefined;
        },
      };
      this.seen = setup.value('seen', u64, { version: 2, migrate });
    },
    *event() {
      this.seen.set(this.seen.get(0) + 1);
      yield `${this.seen.get()}`;
    },
  });
  const tester = new Tester(counted);
  tester.migrate(0, 1, [['a', '41'], ['b', '0']]);
  tester.sendAll([['a', ''], ['b', '']]);
  assert.deepEqual(tester.values(), ['42', '1']);
  assert.throws(() => tester.migrate(0, 7, []), /no migration from version 7/);
  assert.throws(() => tester.migrate(0, 1, [['k', 'x']]), /`seen`, key k, is none of version 1: Error: no number/);
});
