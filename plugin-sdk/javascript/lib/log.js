// Log lines of an operator. They appear in the job's log once the call that wrote them counts.

export const sink = { write: (_level, _message) => {} };

export const debug = (message) => sink.write('debug', String(message));
export const info = (message) => sink.write('info', String(message));
export const warn = (message) => sink.write('warn', String(message));
export const error = (message) => sink.write('error', String(message));
