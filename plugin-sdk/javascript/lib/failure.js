// What can be said against an event, or against a call.

export class Reject extends Error {}
export class Retry extends Error {}
export class Fatal extends Error {}

export class ConfigError extends Error {
  constructor(message, field = '') {
    super(field ? `config: \`${field}\`: ${message}` : `config: ${message}`);
  }
}

const REASON_MAX = 1000;

/** An exception as the reason of a dead letter: its text, and where it was thrown. */
export function reason(error) {
  if (error instanceof Reject) return error.message.slice(0, REASON_MAX);
  if (!(error instanceof Error)) return `thrown: ${String(error)}`.slice(0, REASON_MAX);
  const places = (error.stack ?? '').split('\n').map((line) => line.trim()).filter((line) => line.startsWith('at '));
  const at = places.slice(0, 3).map((place) => place.slice(3)).join(', ');
  return `${error.name}: ${error.message}${at ? ` (at ${at})` : ''}`.slice(0, REASON_MAX);
}

/** An exception with its stack, for the log. */
export function story(error) {
  if (!(error instanceof Error)) return `thrown: ${String(error)}`;
  const stack = error.stack ?? '';
  return stack.includes(error.message) ? stack.trimEnd() : `${error.name}: ${error.message}\n${stack}`.trimEnd();
}
