/**
 * Making and opening a store on an object store. It is made in three puts: the id, the CP record of
 * the empty store, and epoch 1.
 *
 * 1. The store is there when epoch 1 is, and not before: no byte of a client can be lost earlier.
 * 2. Whoever finds the first puts of somebody else goes on with them, so that one who was killed
 *    needs no hand. Of two who format side by side one puts epoch 1; the other is told `exists`.
 * 3. Only what a format leaves behind is gone on with: a store that has lost its epochs is damaged.
 */
import { crc32 } from '../../base/checksum.js';
import { isStoreError, StoreError } from '../../base/store-error.js';
import { BLOCK_BYTES, formatBytes, STORE_BYTES_MAX, STORE_BYTES_MIN } from '../../base/units.js';
import type { ObjectStore } from '../../env/object-store.js';
import { fromHex, toHex } from '../../layout/bytes.js';
import { encodeFsinfo, FORMAT_VERSION, type Fsinfo } from '../../layout/fsinfo.js';
import { getPatiently, listPatiently, numberKey, putText, readCpRecord } from './chain-walk.js';
import { claimStore, type OwnershipOptions } from './claimant.js';
import { epochText } from './epoch-object.js';
import { admit, type LogAccess } from './local-log/local-log.js';
import { ObjectLogMedium } from './object-log-medium.js';
import { RecordChain, recordKey } from './record-chain.js';
import type { Bid } from './take-over.js';

export interface ObjectLogFormat {
  readonly sizeBytes: number;
  /** Of a format that was cut short the uuid stays. */
  readonly uuid: Uint8Array;
  readonly nonce: () => Uint8Array;
}

/** The CP record of the empty store. */
const BASE = 1;
const FIRST_EPOCH = 1;

/** False: there is none, or its format was cut short. @throws {StoreError} device */
export async function hasObjectLog(objects: ObjectStore, prefix: string): Promise<boolean> {
  // Epoch objects are never deleted.
  return (await getPatiently(objects, numberKey(prefix, 'epoch', FIRST_EPOCH))) !== undefined;
}

/**
 * Puts an empty store under the prefix, or ends a format that was cut short.
 * @throws {StoreError} exists if there is one; invalid: the size cannot be, or is not that of the
 *   format that was cut short; corrupt: what is there is neither
 */
export async function formatObjectLog(
  objects: ObjectStore,
  prefix: string,
  request: ObjectLogFormat,
): Promise<void> {
  const { sizeBytes, nonce } = request;
  if (sizeBytes < STORE_BYTES_MIN || sizeBytes > STORE_BYTES_MAX) {
    throw new StoreError(
      'invalid',
      `a store of ${formatBytes(sizeBytes)} cannot be: it has ` +
        `${formatBytes(STORE_BYTES_MIN)} to ${formatBytes(STORE_BYTES_MAX)}`,
    );
  }
  if (await hasObjectLog(objects, prefix)) throw storeExists(objects, prefix);
  await refuseOthers(objects, prefix);
  const uuid = await putId(objects, prefix, request.uuid);
  await putBase(objects, prefix, { ...request, uuid });
  const epoch = epochText({ base: BASE, first: BASE + 1, sealed: 0 }, nonce());
  if ((await putText(objects, numberKey(prefix, 'epoch', FIRST_EPOCH), epoch)) === 'exists') {
    throw storeExists(objects, prefix);
  }
}

function storeExists(objects: ObjectStore, prefix: string): StoreError {
  return new StoreError('exists', `${objects.name}/${prefix} holds a store already`);
}

/** Anything but what a format puts first is the rest of a store. */
async function refuseOthers(objects: ObjectStore, prefix: string): Promise<void> {
  const expected = [numberKey(prefix, 'id'), recordKey(prefix, BASE)];
  const isOurs = (key: string): boolean =>
    expected.includes(key) || key.startsWith(`${prefix}/probe/`);
  let after: string | undefined;
  for (;;) {
    const keys = await listPatiently(objects, `${prefix}/`, after);
    const other = keys.find((key) => !isOurs(key));
    // One that was made meanwhile has its epoch.
    if (other !== undefined && (await hasObjectLog(objects, prefix))) {
      throw storeExists(objects, prefix);
    }
    if (other !== undefined) {
      throw new StoreError(
        'corrupt',
        `${objects.name}: there is no store, but ${other}: bring the store's epoch objects back, ` +
          'or take another prefix',
      );
    }
    if (keys.length === 0) return;
    after = keys.at(-1);
  }
}

/** The uuid of the store. */
async function putId(objects: ObjectStore, prefix: string, uuid: Uint8Array): Promise<Uint8Array> {
  const key = numberKey(prefix, 'id');
  if ((await putText(objects, key, `${toHex(uuid)}\n`)) === 'created') return uuid;
  const bytes = await getPatiently(objects, key);
  const found = fromHex(new TextDecoder().decode(bytes).trim());
  if (found !== undefined) return found;
  throw new StoreError('corrupt', `${objects.name}/${prefix}: the store's id object is damaged`);
}

/** The CP record of the empty store: ours, or one of the same size that is there. */
async function putBase(
  objects: ObjectStore,
  prefix: string,
  { sizeBytes, uuid, nonce }: ObjectLogFormat,
): Promise<void> {
  const fsinfo = emptyFsinfo(uuid, sizeBytes);
  const identity = { uuid, lineage: 0, epoch: FIRST_EPOCH, nonce, prefix };
  const chain = new RecordChain(objects, identity, BASE);
  const record = chain.open();
  const block = encodeFsinfo(fsinfo);
  const tag = { treeId: 0, fbn: 0, level: 0, crc: crc32(block), kind: 'meta' } as const;
  chain.copyIn(record, block, [tag]);
  chain.close(record, 'cp');
  try {
    await chain.acknowledged(record.number);
    return;
  } catch (error) {
    if (!isStoreError(error, 'fenced')) throw error;
  }
  const there = await readCpRecord(objects, prefix, uuid, BASE);
  if (there.storeBlocks === fsinfo.storeBlocks) return;
  const begun = there.storeBlocks * BLOCK_BYTES;
  throw new StoreError(
    'invalid',
    `${objects.name}/${prefix}: somebody has begun to make a store of ${begun} bytes ` +
      'there: give that size to end it, or take another prefix',
  );
}

function emptyFsinfo(uuid: Uint8Array, sizeBytes: number): Fsinfo {
  const hole = { words: [0, 0, 0, 0], height: 1 } as const;
  return {
    uuid,
    version: FORMAT_VERSION,
    compatible: 0,
    readOnlyCompatible: 0,
    incompatible: 0,
    medium: 'object-log',
    cpNumber: 0,
    epoch: FIRST_EPOCH,
    lineage: 0,
    logUuid: new Uint8Array(16),
    clean: true,
    storeBlocks: Math.floor(sizeBytes / BLOCK_BYTES),
    logStart: 0,
    logBlocks: 0,
    replayFrom: BASE + 1,
    replayPosition: 0,
    localFrom: 0,
    nextTreeId: 1,
    nextVdiskId: 1,
    freePairs: 0,
    dataGaps: 0,
    metaGaps: 0,
    usedBlocks: 0,
    pending: [],
    roots: { tree: hole, vdisk: hole, reference: hole, usage: hole, map: hole },
    epochs: [],
  };
}

export interface ObjectLogOptions {
  /**
   * Undefined: the store is taken over at once, and reads after a take-over by somebody else are
   * answered until a write is refused.
   */
  readonly ownership?: OwnershipOptions | undefined;
  /** The local log, and whether the store may be opened without the one that it needs. */
  readonly access?: LogAccess;
}

/**
 * Opens the store under the prefix for reading and writing, without recovery.
 *
 * @throws {StoreError} in-use: its owner lives; fenced: others were quicker; not-found: its local
 *   log is not here; invalid, corrupt
 */
export async function openObjectLog(
  objects: ObjectStore,
  prefix: string,
  nonce: () => Uint8Array,
  { ownership, access = { log: undefined, isGivenUp: false } }: ObjectLogOptions = {},
): Promise<ObjectLogMedium> {
  const { log } = access;
  const bid: Bid = {
    objects,
    prefix,
    nonce,
    owner: ownership?.owner,
    admit: (fsinfo) => admit(fsinfo, access, `${objects.name}/${prefix}`),
  };
  const granted = await claimStore(bid, ownership);
  await log?.begin(granted.fsinfo, granted.epoch, nonce());
  return new ObjectLogMedium({ objects, prefix, nonce, ownership, localLog: log, ...granted });
}
