/**
 * Making and opening a store on an object store.
 *
 * Opening read-write seals the chain where it ends, so that nothing that is still on its way from
 * an earlier owner can follow, and claims the next epoch.
 */
import { crc32 } from '../../base/checksum.js';
import { StoreError } from '../../base/store-error.js';
import { BLOCK_BYTES, formatBytes, STORE_BYTES_MAX, STORE_BYTES_MIN } from '../../base/units.js';
import type { ObjectStore } from '../../env/object-store.js';
import { toHex } from '../../layout/bytes.js';
import {
  encodeFsinfo,
  FORMAT_VERSION,
  type Fsinfo,
  mustOpenReadOnly,
} from '../../layout/fsinfo.js';
import type { RecordHead } from '../../layout/log-record.js';
import {
  EPOCH_GAP_RECORDS,
  epochText,
  findChain,
  getPatiently,
  numberKey,
  putText,
  walkChain,
} from './chain-walk.js';
import { ObjectLogMedium } from './object-log-medium.js';
import { type ChainIdentity, type OpenRecord, RecordChain } from './record-chain.js';

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
  const epoch = epochText({ base: record.number, first: 2, sealed: 0 });
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

/** Opens the store under the prefix for reading and writing, without recovery. */
export async function openObjectLog(
  objects: ObjectStore,
  prefix: string,
  nonce: () => Uint8Array,
): Promise<ObjectLogMedium> {
  const state = await findChain(objects, prefix);
  if (mustOpenReadOnly(state.fsinfo)) {
    throw new StoreError(
      'unsupported',
      `${objects.name}/${prefix} can only be read by this program`,
    );
  }
  const sealed = await seal(objects, prefix, state.uuid, state.epoch, state.fsinfo, nonce);
  const epoch = state.epoch + 1;
  const first = sealed + EPOCH_GAP_RECORDS;
  const claim = epochText({ base: state.cpRecord, first, sealed });
  if ((await putText(objects, numberKey(prefix, 'epoch', epoch), claim)) === 'exists') {
    throw new StoreError(
      'fenced',
      `${objects.name}/${prefix}: another server claimed epoch ${epoch}`,
    );
  }
  return new ObjectLogMedium({ objects, prefix, fsinfo: state.fsinfo, epoch, first, nonce });
}

/** Ends the chain with a SEAL; returns its number. */
async function seal(
  objects: ObjectStore,
  prefix: string,
  uuid: Uint8Array,
  epoch: number,
  fsinfo: Fsinfo,
  nonce: () => Uint8Array,
): Promise<number> {
  let number = await findTail(objects, prefix, fsinfo, epoch);
  for (;;) {
    const head: RecordHead = {
      kind: 'seal',
      uuid,
      lineage: fsinfo.lineage,
      epoch,
      number,
      cpNumber: 0,
      nonce: nonce(),
    };
    if (await putSeal(objects, prefix, head)) return number;
    // A record of the chain landed there meanwhile; or an earlier SEAL stands before it, and this
    // is a record that came too late.
    const tail = await findTail(objects, prefix, fsinfo, epoch);
    number = Math.max(tail, number + 1);
  }
}

/** The number behind the end of this epoch's part of the chain. */
async function findTail(
  objects: ObjectStore,
  prefix: string,
  fsinfo: Fsinfo,
  epoch: number,
): Promise<number> {
  const walk = walkChain(objects, prefix, fsinfo, epoch);
  for (;;) {
    const step = await walk.next();
    if (step.done === true) return step.value;
  }
}

async function putSeal(objects: ObjectStore, prefix: string, head: RecordHead): Promise<boolean> {
  const chain = new RecordChain(objects, { ...head, prefix, nonce: () => head.nonce }, head.number);
  const record: OpenRecord = chain.open();
  chain.close(record, 'seal');
  try {
    await chain.acknowledged(head.number);
    return true;
  } catch (error) {
    if (error instanceof StoreError && error.kind === 'fenced') return false;
    throw error;
  }
}
