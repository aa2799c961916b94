// UTF-8. The engine of the component has neither TextDecoder nor TextEncoder; `escape` and
// `decodeURIComponent` together are a strict decoder.

const CHUNK = 8192;

const strict = globalThis.TextDecoder && new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const encoder = globalThis.TextEncoder && new TextEncoder();

const latin = (bytes) => {
  if (bytes.length <= CHUNK) return String.fromCharCode.apply(null, bytes);
  let text = '';
  for (let i = 0; i < bytes.length; i += CHUNK) text += String.fromCharCode.apply(null, bytes.subarray(i, i + CHUNK));
  return text;
};

/** One character a byte: a key for a Map that two equal rows of bytes share. */
export const identity = latin;

export function decodeText(bytes) {
  if (strict) return strict.decode(bytes);
  const text = latin(bytes);
  // Text in ASCII is its own decoding.
  return /^[\x00-\x7f]*$/.test(text) ? text : decodeURIComponent(escape(text));
}

export function encodeText(text) {
  if (encoder) return encoder.encode(text);
  const whole = text.toWellFormed ? text.toWellFormed() : text;
  const narrow = /^[\x00-\x7f]*$/.test(whole) ? whole : unescape(encodeURIComponent(whole));
  const out = new Uint8Array(narrow.length);
  for (let i = 0; i < narrow.length; i++) out[i] = narrow.charCodeAt(i);
  return out;
}

/** Bytes of a value or key that an author gave. */
export const toBytes = (data) => (typeof data === 'string' ? encodeText(data) : data);
