/** The items of a JSON answer `{..., "extents": [item, ...]}`, one by one: it may be a long one. */
import { CommandError } from './failure.js';

/** Braces and brackets around an item: those of the document and of its list. */
const ITEM_DEPTH = 2;

/** @throws {CommandError} failed: no such JSON */
export async function* extentItems(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<unknown> {
  const decoder = new TextDecoder();
  let depth = 0;
  let isText = false;
  let isEscaped = false;
  /** The item that has begun. */
  let item = '';
  let isItem = false;
  for await (const chunk of chunks) {
    const text = decoder.decode(chunk, { stream: true });
    let itemStart = 0;
    for (let at = 0; at < text.length; at++) {
      const char = text[at];
      if (isText) {
        if (isEscaped) isEscaped = false;
        else if (char === '\\') isEscaped = true;
        else if (char === '"') isText = false;
      } else if (char === '"') {
        isText = true;
      } else if (char === '{' || char === '[') {
        if (depth === ITEM_DEPTH && char === '{') {
          isItem = true;
          itemStart = at;
        }
        depth++;
      } else if (char === '}' || char === ']') {
        depth--;
        if (depth === ITEM_DEPTH && isItem) {
          yield parse(item + text.slice(itemStart, at + 1));
          item = '';
          isItem = false;
        }
      }
    }
    if (isItem) item += text.slice(itemStart);
  }
  if (depth !== 0) throw bad(undefined);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw bad(cause);
  }
}

function bad(cause: unknown): CommandError {
  return new CommandError('failed', 'the answer is no JSON: is this a keiki server?', { cause });
}
