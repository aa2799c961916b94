// What makes an object the operator of a plugin: the default export of its module.

export function operator(made) {
  if (!made.event && !made.batch) throw new TypeError('an operator has event() or batch()');
  return { kind: 'operator', made };
}

export function aggregate(made) {
  const missing = ['accumulator', 'start', 'fold', 'merge', 'finish'].filter((name) => !made[name]);
  if (missing.length) throw new TypeError(`the aggregate lacks ${missing.join(', ')}`);
  return { kind: 'aggregate', made };
}

export const filter = (keeps) => operator({
  event(event, ctx) {
    if (keeps(event)) ctx.forward();
  },
});

export const map = (change) => operator({
  event(event, ctx) {
    ctx.emit(change(event));
  },
});

export const flatMap = (change) => operator({ event: (event) => change(event) });
