/** What is in a vdisk: its data in and out, maps, differences. */
import { SECTOR_BYTES } from '../../base/units.js';
import type { BlockTarget } from '../../vdisk/block-target.js';
import {
  copied,
  extentsOf,
  GROWTH_BYTES_MIN,
  PieceWriter,
  rawBytes,
  rawPieces,
  readPieces,
} from '../content.js';
import type { ControlPlane } from '../control-plane.js';
import { isOwnName } from '../exports.js';
import { type CallOf, type Handlers, StreamAnswer } from '../handler.js';
import { JSON_TYPE, RAW_TYPE, SPARSE_TYPE } from '../operations.js';
import { ApiError } from '../problem.js';
import { streamChunks, typeOf } from '../request-body.js';
import { decodeSparse, encodeSparse, type SparsePiece } from '../sparse-stream.js';
import { checkNotOwn } from './vdisk-handlers.js';

type ContentHandlers = Pick<Handlers, 'mapVdisk' | 'diff' | 'readData' | 'writeData'>;

/** Text of a JSON answer is sent when so much of it is there. */
const TEXT_CHARS = 32 * 1024;

export function contentHandlers(plane: ControlPlane): ContentHandlers {
  return {
    mapVdisk: ({ params: { name }, query }) => {
      const target = findTarget(plane, name);
      const { offset, length } = rangeOf(target, query);
      const extents = held(plane, target, extentsOf(target, offset, length));
      return new StreamAnswer(JSON_TYPE, jsonList({ name }, 'extents', extents));
    },

    diff: ({ query: { from, to } }) => {
      for (const name of [from, to]) if (name !== undefined) findTarget(plane, name);
      const extents = plane.store.diff(from, to);
      return new StreamAnswer(JSON_TYPE, jsonList({ from: from ?? null, to }, 'extents', extents));
    },

    readData: (call) => readData(plane, call),
    writeData: (call) => writeData(plane, call),
  };
}

function findTarget(plane: ControlPlane, name: string): BlockTarget {
  const target = isOwnName(name) ? undefined : plane.exports.target(name);
  if (target !== undefined) return target;
  throw new ApiError(
    'not-found',
    `there is no ${name.includes('@') ? 'snapshot' : 'vdisk'} ${name}`,
  );
}

/** The part of the vdisk that is asked for. */
function rangeOf(
  { name, sizeBytes }: BlockTarget,
  query: { readonly offset?: number; readonly length?: number },
): { readonly offset: number; readonly length: number } {
  const { offset = 0, length = sizeBytes } = query;
  if (offset > sizeBytes) {
    throw new ApiError('invalid', `byte ${offset} is beyond the ${sizeBytes} bytes of ${name}`);
  }
  return { offset, length: Math.min(length, sizeBytes - offset) };
}

/** The vdisk cannot be deleted while this is read. */
async function* held<T>(
  plane: ControlPlane,
  target: BlockTarget,
  items: AsyncIterable<T>,
): AsyncGenerator<T> {
  const key = {};
  plane.exports.hold(key, target);
  try {
    yield* items;
  } finally {
    plane.exports.release(key);
  }
}

/** `{...head, "<key>": [items]}`, in pieces. */
async function* jsonList(
  head: object,
  key: string,
  items: AsyncIterable<object>,
): AsyncGenerator<string> {
  let text = `${JSON.stringify(head).slice(0, -1)},${JSON.stringify(key)}:[`;
  let separator = '';
  for await (const item of items) {
    text += separator + JSON.stringify(item);
    separator = ',';
    if (text.length < TEXT_CHARS) continue;
    yield text;
    text = '';
  }
  yield `${text}]}\n`;
}

function readData(plane: ControlPlane, call: CallOf<'readData'>): StreamAnswer {
  const target = findTarget(plane, call.params.name);
  const range = rangeOf(target, call.query);
  const type = chosenType(call.headers.accept ?? '');
  const pieces = exportPieces(plane, target, range, () => call.stream.destroy());
  if (type === RAW_TYPE) {
    const headers = { 'content-length': range.length };
    return new StreamAnswer(type, rawBytes(pieces), { headers });
  }
  const endOffset = range.offset + range.length;
  return new StreamAnswer(
    type,
    encodeSparse(copied(pieces), () => endOffset),
  );
}

/** The pieces of a range, as a job. A job that is cancelled cuts its client off. */
async function* exportPieces(
  plane: ControlPlane,
  target: BlockTarget,
  { offset, length }: { readonly offset: number; readonly length: number },
  cutOff: () => void,
): AsyncGenerator<SparsePiece> {
  let doneBytes = 0;
  let settle: (failure: Error | undefined) => void = () => undefined;
  const done = new Promise<void>((resolve, reject) => {
    settle = (failure) => (failure === undefined ? resolve() : reject(failure));
  });
  plane.jobs.start({
    kind: 'export',
    vdisk: () => target.name,
    state: () => ({ doneBytes, totalBytes: length, pauseReason: undefined }),
    done,
    cancel: () => Promise.resolve(cutOff()),
  });
  let failure: Error | undefined = new ApiError('cancelled', 'its client has gone');
  try {
    for await (const piece of held(plane, target, readPieces(target, offset, length))) {
      yield piece;
      const end = piece.offset + (piece.kind === 'data' ? piece.bytes.length : piece.length);
      doneBytes = end - offset;
    }
    failure = undefined;
  } catch (error) {
    failure = error instanceof Error ? error : new Error(String(error));
    throw error;
  } finally {
    settle(failure);
  }
}

/** A stream can be as long as a vdisk: it is for those who ask for it by name. */
function chosenType(accept: string): string {
  const types = accept.split(',').map((part) => part.split(';')[0]?.trim().toLowerCase());
  for (const type of [SPARSE_TYPE, RAW_TYPE]) if (types.includes(type)) return type;
  throw new ApiError('not-acceptable', `send "Accept: ${RAW_TYPE}" or "Accept: ${SPARSE_TYPE}"`);
}

interface Written {
  readonly name: string;
  readonly sizeBytes: number;
  readonly dataBytes: number;
  readonly zeroBytes: number;
}

async function writeData(plane: ControlPlane, call: CallOf<'writeData'>): Promise<Written> {
  const { name } = call.params;
  const { createSizeBytes, create, offset = 0 } = call.query;
  checkNotOwn(name);
  const type = typeOf(call.stream) ?? RAW_TYPE;
  if (type !== RAW_TYPE && type !== SPARSE_TYPE) {
    const message = `a body of type ${RAW_TYPE} or ${SPARSE_TYPE} is needed`;
    throw new ApiError('invalid', message, { status: 415 });
  }
  if (type === SPARSE_TYPE && offset > 0) {
    throw new ApiError('invalid', 'a sparse stream says its offsets itself: leave offset out');
  }
  if (createSizeBytes !== undefined && create !== undefined) {
    throw new ApiError('invalid', 'createSizeBytes says the size, create leaves it to the stream');
  }
  if (createSizeBytes !== undefined || create !== undefined) {
    return importNew(plane, call, { name, sizeBytes: createSizeBytes, type, offset });
  }
  if (name.includes('@')) throw new ApiError('read-only', `${name} is a snapshot: clone it first`);
  const target = findTarget(plane, name);
  return plane.exports.alone(name, async () => {
    const into = { target, isNew: false, type, offset, name: () => target.name };
    const { dataBytes, zeroBytes } = await runImport(plane, call, into);
    return { name: target.name, sizeBytes: target.sizeBytes, dataBytes, zeroBytes };
  });
}

interface NewImport {
  readonly name: string;
  /** Undefined: as the stream is long. */
  readonly sizeBytes: number | undefined;
  readonly type: string;
  readonly offset: number;
}

/** Into a vdisk that nobody sees, which gets its name when everything is there. */
async function importNew(
  plane: ControlPlane,
  call: CallOf<'writeData'>,
  { name, sizeBytes, type, offset }: NewImport,
): Promise<Written> {
  const { store, exports, events, options } = plane;
  if (name.includes('@'))
    throw new ApiError('invalid', `${name}: a new vdisk has no @ in its name`);
  if (store.list().some((info) => info.name === name)) {
    throw new ApiError('exists', `${name} exists already`);
  }
  const hidden = `_keiki.import.${options.random.nextU32()}.${options.random.nextU32()}`;
  const isGrowing = sizeBytes === undefined;
  await store.createVdisk(hidden, sizeBytes ?? GROWTH_BYTES_MIN);
  try {
    const target = exports.target(hidden);
    if (target === undefined) throw new ApiError('internal', 'a new vdisk is not there');
    const grow = isGrowing ? (bytes: number) => store.resize(hidden, bytes) : undefined;
    const into = { target, isNew: true, grow, type, offset, name: () => name };
    const { dataBytes, zeroBytes, endOffset } = await runImport(plane, call, into);
    if (isGrowing) await store.resize(hidden, sizeOf(endOffset));
    await store.rename(hidden, name);
    exports.renamed(hidden, name);
    events.add('vdisk-created', plane.show(name));
    return { name, sizeBytes: target.sizeBytes, dataBytes, zeroBytes };
  } catch (error) {
    await store.delete(hidden);
    exports.deleted(hidden);
    throw error;
  }
}

/** Of a vdisk whose stream ended there. @throws {ApiError} invalid */
function sizeOf(endOffset: number): number {
  if (endOffset > 0) return Math.ceil(endOffset / SECTOR_BYTES) * SECTOR_BYTES;
  throw new ApiError('invalid', 'the stream has ended without a byte: a vdisk has 512 at least');
}

interface Import {
  readonly target: BlockTarget;
  readonly isNew: boolean;
  /** Gives the target another size, as the stream goes on. */
  readonly grow?: ((sizeBytes: number) => Promise<void>) | undefined;
  readonly type: string;
  readonly offset: number;
  readonly name: () => string;
}

interface Imported {
  readonly dataBytes: number;
  readonly zeroBytes: number;
  /** Where the stream has ended, in the vdisk. */
  readonly endOffset: number;
}

async function runImport(
  plane: ControlPlane,
  { stream, signal, headers }: CallOf<'writeData'>,
  { target, isNew, grow, type, offset, name }: Import,
): Promise<Imported> {
  const cancelled = new AbortController();
  const either = AbortSignal.any([signal, cancelled.signal]);
  const chunks = streamChunks(stream, either, plane.clock);
  let toldEnd = 0;
  const onEnd = (endOffset: number): void => {
    toldEnd = endOffset;
  };
  const pieces = type === SPARSE_TYPE ? decodeSparse(chunks, onEnd) : rawPieces(chunks, offset);
  const writer = new PieceWriter(target, { isNew, grow });
  const given = Number(headers['content-length']);
  const isLengthKnown = type === RAW_TYPE && Number.isSafeInteger(given);
  const isSizeKnown = isNew && grow === undefined;
  const totalBytes = isLengthKnown ? given : isSizeKnown ? target.sizeBytes : undefined;
  const done = writer.run(pieces);
  plane.jobs.start({
    kind: 'import',
    vdisk: name,
    state: () => ({
      doneBytes: Math.max(0, writer.progress.position - offset),
      totalBytes,
      pauseReason: undefined,
    }),
    done,
    cancel: () => Promise.resolve(cancelled.abort()),
  });
  await done;
  const { dataBytes, zeroBytes, position } = writer.progress;
  return { dataBytes, zeroBytes, endOffset: Math.max(toldEnd, position) };
}
