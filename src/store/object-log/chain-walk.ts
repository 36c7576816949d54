/**
 * Finding a store on an object store: its epoch, its last consistency point, the tail of its chain.
 *
 * Keys: `id`, `epoch/<e>`, `cp/<e>/<cp>`, `log/<n>`; numbers as 16 hexadecimal digits. A SEAL ends
 * an epoch's part of the chain; the next epoch's begins 1,024 numbers on, so that a record of the
 * old one that lands late never has a number of the new one.
 */
import { isStoreError, StoreError } from '../../base/store-error.js';
import { BLOCK_BYTES } from '../../base/units.js';
import { AmbiguousPutError, isPassingFailure, type ObjectStore } from '../../env/object-store.js';
import { fromHex } from '../../layout/bytes.js';
import { decodeFsinfo, type Fsinfo } from '../../layout/fsinfo.js';
import { decodeRecord, type LogRecord } from '../../layout/log-record.js';
import { type EpochBody, type OwnerToken, parseEpoch, type StaleReads } from './epoch-object.js';
import { PUT_TRIES_MAX, READ_TRIES_MAX, recordKey } from './record-chain.js';

export const EPOCH_GAP_RECORDS = 1024;
/** What is damaged in so many readings is. */
const READINGS_MAX = 3;

export function numberKey(prefix: string, ...parts: readonly (string | number)[]): string {
  const path = parts.map((part) =>
    typeof part === 'number' ? part.toString(16).padStart(16, '0') : part,
  );
  return [prefix, ...path].join('/');
}

export interface FoundRecord {
  readonly record: LogRecord;
  readonly object: Uint8Array;
}

/** Reads with patience: a server's error is tried again, unless the store itself has done so. */
export async function getPatiently(
  objects: ObjectStore,
  key: string,
  offset?: number,
  length?: number,
): Promise<Uint8Array | undefined> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await objects.get(key, offset, length);
    } catch (error) {
      if (attempt >= READ_TRIES_MAX || !isPassingFailure(error)) throw error;
    }
  }
}

/**
 * What is damaged is read again before that is believed: it may have changed on its way, and the
 * object have not.
 */
async function soundly<T>(read: () => Promise<T>): Promise<T> {
  for (let reading = 1; ; reading++) {
    try {
      return await read();
    } catch (error) {
      if (reading >= READINGS_MAX || !isStoreError(error, 'corrupt')) throw error;
    }
  }
}

/** Creates a small object; settles an unknown outcome by reading it back. */
export async function putText(
  objects: ObjectStore,
  key: string,
  text: string,
): Promise<'created' | 'exists'> {
  const body = new TextEncoder().encode(text);
  for (let attempt = 1; ; attempt++) {
    let outcome: 'created' | 'exists' | undefined;
    try {
      outcome = await objects.putNew(key, [body]);
    } catch (error) {
      if (!(error instanceof AmbiguousPutError) || attempt >= PUT_TRIES_MAX) throw error;
    }
    if (outcome === 'created') return outcome;
    // 'exists' may be ours, too: somebody on the way has sent the request twice.
    const there = await textThere(objects, key, text);
    if (there !== undefined) return there === text ? 'created' : 'exists';
    if (outcome === 'exists') return outcome;
  }
}

/** What is there; if it is not what was expected, as two readings have it. */
async function textThere(
  objects: ObjectStore,
  key: string,
  expected: string,
): Promise<string | undefined> {
  for (let before: string | undefined; ; ) {
    const bytes = await getPatiently(objects, key);
    if (bytes === undefined) return undefined;
    const text = toText(bytes);
    if (text === expected || text === before) return text;
    before = text;
  }
}

function toText(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

async function lastKey(objects: ObjectStore, prefix: string): Promise<string | undefined> {
  let last: string | undefined;
  for (;;) {
    const keys = await listPatiently(objects, prefix, last);
    if (keys.length === 0) return last;
    last = keys.at(-1);
  }
}

/** All keys that start with the prefix, in order. */
export async function listAll(objects: ObjectStore, prefix: string): Promise<string[]> {
  const all: string[] = [];
  for (;;) {
    const keys = await listPatiently(objects, prefix, all.at(-1));
    if (keys.length === 0) return all;
    all.push(...keys);
  }
}

export async function listPatiently(
  objects: ObjectStore,
  prefix: string,
  after: string | undefined,
): Promise<string[]> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await objects.list(prefix, after);
    } catch (error) {
      if (attempt >= READ_TRIES_MAX || !isPassingFailure(error)) throw error;
    }
  }
}

export interface ChainState {
  readonly uuid: Uint8Array;
  readonly epoch: number;
  /** Who claimed the epoch, if it is known. */
  readonly owner: OwnerToken | undefined;
  readonly staleReads: StaleReads | undefined;
  readonly fsinfo: Fsinfo;
  readonly cpRecord: number;
}

/** Undefined if nobody has claimed it. @throws {StoreError} corrupt */
async function readEpoch(
  objects: ObjectStore,
  prefix: string,
  epoch: number,
): Promise<EpochBody | undefined> {
  const bytes = await getPatiently(objects, numberKey(prefix, 'epoch', epoch));
  if (bytes === undefined) return undefined;
  return parseEpoch(toText(bytes), `${objects.name}: epoch object ${epoch}`);
}

export interface IndexedCp {
  readonly cpNumber: number;
  /** Nothing vouches for it but the CP record itself. */
  readonly record: number;
}

/** The last consistency point that this epoch has indexed. */
export function newestIndexed(
  objects: ObjectStore,
  prefix: string,
  epoch: number,
): Promise<IndexedCp | undefined> {
  return soundly(() => readNewestIndexed(objects, prefix, epoch));
}

async function readNewestIndexed(
  objects: ObjectStore,
  prefix: string,
  epoch: number,
): Promise<IndexedCp | undefined> {
  for (;;) {
    const key = await lastKey(objects, `${numberKey(prefix, 'cp', epoch)}/`);
    if (key === undefined) return undefined;
    const bytes = await getPatiently(objects, key);
    // A live owner deletes the older ones.
    if (bytes === undefined) continue;
    const text = toText(bytes);
    if (!/^\d+\n$/.test(text)) {
      throw new StoreError('corrupt', `${objects.name}: index object ${key} cannot be read`);
    }
    return { cpNumber: Number.parseInt(key.slice(-16), 16), record: Number(text) };
  }
}

/** The number of the newest epoch. */
export async function newestEpoch(
  objects: ObjectStore,
  prefix: string,
): Promise<number | undefined> {
  const key = await lastKey(objects, `${prefix}/epoch/`);
  return key === undefined ? undefined : Number.parseInt(key.slice(-16), 16);
}

/** The store under this prefix. @throws {StoreError} invalid if there is none */
export function findChain(objects: ObjectStore, prefix: string): Promise<ChainState> {
  return soundly(() => findChainNow(objects, prefix));
}

async function findChainNow(objects: ObjectStore, prefix: string): Promise<ChainState> {
  const id = await getPatiently(objects, numberKey(prefix, 'id'));
  const uuid = id === undefined ? undefined : fromHex(toText(id).trim());
  const epoch = await newestEpoch(objects, prefix);
  if (epoch === undefined) {
    const next = id === undefined ? 'format it first' : 'its format was cut short: format it again';
    throw new StoreError('invalid', `${objects.name}/${prefix} holds no store; ${next}`);
  }
  if (uuid === undefined) {
    const what = id === undefined ? 'missing' : 'damaged';
    throw new StoreError(
      'corrupt',
      `${objects.name}/${prefix}: the store's id object is ${what}: put the uuid of its CP ` +
        'records there again, as 32 hexadecimal digits',
    );
  }
  const body = await readEpoch(objects, prefix, epoch);
  const indexed = await readNewestIndexed(objects, prefix, epoch);
  const cpRecord = indexed?.record ?? body?.base ?? 0;
  const fsinfo = await readCpRecord(objects, prefix, uuid, cpRecord);
  // The index has no checksum: a wrong digit must not lead to an older consistency point.
  if (indexed !== undefined && fsinfo.cpNumber !== indexed.cpNumber) {
    throw new StoreError(
      'corrupt',
      `${objects.name}: the index of epoch ${epoch} names CP record ${cpRecord} for CP ` +
        `${indexed.cpNumber}, and it holds CP ${fsinfo.cpNumber}`,
    );
  }
  const { owner, staleReads } = body ?? {};
  return { uuid, epoch, owner, staleReads, fsinfo, cpRecord };
}

/** @throws {StoreError} corrupt, unsupported, device */
export async function readCpRecord(
  objects: ObjectStore,
  prefix: string,
  uuid: Uint8Array,
  number: number,
): Promise<Fsinfo> {
  const object = await getPatiently(objects, recordKey(prefix, number));
  const record = object === undefined ? undefined : decodeRecord(object, uuid);
  if (object === undefined || record?.kind !== 'cp' || record.number !== number) {
    throw new StoreError('corrupt', `${objects.name}: CP record ${number} is missing or damaged`);
  }
  return fsinfoOf(object, `${objects.name}: CP record ${number}`);
}

/** What a CP record holds. @throws {StoreError} corrupt, unsupported */
export function fsinfoOf(object: Uint8Array, name: string): Fsinfo {
  const outcome = decodeFsinfo(object.subarray(0, BLOCK_BYTES));
  if (outcome.kind === 'ok') return outcome.fsinfo;
  const kind = outcome.kind === 'unsupported' ? 'unsupported' : 'corrupt';
  throw new StoreError(kind, `${name}: ${outcome.reason}`);
}

/**
 * Records that this consistency point lacks, over the SEALs, up to the first gap. Returns the
 * number of the gap.
 *
 * The first SEAL in an epoch's part of the chain ends it, whoever put it: nothing behind it was
 * ever acknowledged. Two servers may each put one, and only one of them gets the next epoch; a
 * third may put one late, into the part of an epoch that it did not know of.
 *
 * @param epochMax  later epochs are not followed
 */
export async function* walkChain(
  objects: ObjectStore,
  prefix: string,
  fsinfo: Pick<Fsinfo, 'replayFrom' | 'epoch' | 'uuid'>,
  epochMax = Number.MAX_SAFE_INTEGER,
): AsyncGenerator<FoundRecord, number> {
  let number = fsinfo.replayFrom;
  let { epoch } = fsinfo;
  for (;;) {
    const found = await soundly(() => readRecord(objects, prefix, fsinfo.uuid, number));
    if (found === undefined) return number;
    const { record } = found;
    // What an earlier owner had under way must never pass for a record of this epoch.
    if (record.kind !== 'seal' && record.epoch !== epoch) {
      throw new StoreError(
        'corrupt',
        `${objects.name}: log record ${number} is of epoch ${record.epoch} and stands in the ` +
          `part of epoch ${epoch}`,
      );
    }
    yield found;
    number++;
    if (record.kind !== 'seal') continue;
    epoch++;
    const isKnown = epoch <= epochMax;
    const next = isKnown ? await soundly(() => readEpoch(objects, prefix, epoch)) : undefined;
    if (next === undefined) return number;
    number = next.first;
  }
}

/** Undefined: there is none. @throws {StoreError} corrupt, unsupported */
async function readRecord(
  objects: ObjectStore,
  prefix: string,
  uuid: Uint8Array,
  number: number,
): Promise<FoundRecord | undefined> {
  const object = await getPatiently(objects, recordKey(prefix, number));
  if (object === undefined) return undefined;
  const record = decodeRecord(object, uuid);
  if (record === undefined || record.number !== number) {
    throw new StoreError('corrupt', `${objects.name}: log record ${number} is damaged`);
  }
  if (record.kind === 'cp') fsinfoOf(object, `${objects.name}: CP record ${number}`);
  return { record, object };
}
