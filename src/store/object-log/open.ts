/** Making and opening a store on an object store. */
import { crc32 } from '../../base/checksum.js';
import { StoreError } from '../../base/store-error.js';
import { BLOCK_BYTES, formatBytes, STORE_BYTES_MAX, STORE_BYTES_MIN } from '../../base/units.js';
import type { ObjectStore } from '../../env/object-store.js';
import { toHex } from '../../layout/bytes.js';
import { encodeFsinfo, FORMAT_VERSION, type Fsinfo } from '../../layout/fsinfo.js';
import { getPatiently, numberKey, putText } from './chain-walk.js';
import { claimStore, type OwnershipOptions } from './claimant.js';
import { epochText } from './epoch-object.js';
import { ObjectLogMedium } from './object-log-medium.js';
import { type ChainIdentity, RecordChain } from './record-chain.js';

export interface ObjectLogFormat {
  readonly sizeBytes: number;
  readonly uuid: Uint8Array;
  readonly nonce: () => Uint8Array;
}

/** Puts an empty store under the prefix. @throws {StoreError} exists if there is one */
export async function formatObjectLog(
  objects: ObjectStore,
  prefix: string,
  request: ObjectLogFormat,
): Promise<void> {
  if (request.sizeBytes < STORE_BYTES_MIN || request.sizeBytes > STORE_BYTES_MAX) {
    throw new StoreError(
      'invalid',
      `a store of ${formatBytes(request.sizeBytes)} cannot be: it has ` +
        `${formatBytes(STORE_BYTES_MIN)} to ${formatBytes(STORE_BYTES_MAX)}`,
    );
  }
  const there = await getPatiently(objects, numberKey(prefix, 'epoch', 1));
  const id = `${toHex(request.uuid)}\n`;
  if (there !== undefined || (await putText(objects, numberKey(prefix, 'id'), id)) === 'exists') {
    throw new StoreError('exists', `${objects.name}/${prefix} holds a store already`);
  }
  const chain = new RecordChain(objects, identity(prefix, request.uuid, 1, request.nonce), 1);
  const record = chain.open();
  const block = encodeFsinfo(emptyFsinfo(request));
  chain.copyIn(record, block, { treeId: 0, fbn: 0, level: 0, crc: crc32(block), kind: 'meta' });
  chain.close(record, 'cp');
  await chain.acknowledged(record.number);
  const epoch = epochText({ base: record.number, first: 2, sealed: 0 }, request.nonce());
  await putText(objects, numberKey(prefix, 'epoch', 1), epoch);
}

function identity(
  prefix: string,
  uuid: Uint8Array,
  epoch: number,
  nonce: () => Uint8Array,
): ChainIdentity {
  return { uuid, lineage: 0, epoch, nonce, prefix };
}

function emptyFsinfo(request: ObjectLogFormat): Fsinfo {
  const hole = { words: [0, 0, 0, 0], height: 1 } as const;
  return {
    uuid: request.uuid,
    version: FORMAT_VERSION,
    compatible: 0,
    readOnlyCompatible: 0,
    incompatible: 0,
    medium: 'object-log',
    cpNumber: 0,
    epoch: 1,
    lineage: 0,
    logUuid: new Uint8Array(16),
    clean: true,
    storeBlocks: Math.floor(request.sizeBytes / BLOCK_BYTES),
    logStart: 0,
    logBlocks: 0,
    replayFrom: 2,
    replayPosition: 0,
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

/**
 * Opens the store under the prefix for reading and writing, without recovery.
 *
 * @param ownership  undefined: it is taken over at once, and reads after a take-over by somebody
 *   else are answered until a write is refused
 * @throws {StoreError} in-use: its owner lives; fenced: others were quicker; invalid, corrupt
 */
export async function openObjectLog(
  objects: ObjectStore,
  prefix: string,
  nonce: () => Uint8Array,
  ownership?: OwnershipOptions,
): Promise<ObjectLogMedium> {
  const bid = { objects, prefix, nonce, owner: ownership?.owner };
  const granted = await claimStore(bid, ownership);
  return new ObjectLogMedium({ objects, prefix, nonce, ownership, ...granted });
}
