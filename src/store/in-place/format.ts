/** Making and opening a store on a device. */
import { StoreError } from '../../base/store-error.js';
import {
  BLOCK_BYTES,
  formatBytes,
  heightFor,
  MIB,
  SEGMENT_BLOCKS,
  STORE_BYTES_MAX,
  STORE_BYTES_MIN,
} from '../../base/units.js';
import type { Clock } from '../../env/clock.js';
import type { Device } from '../../env/device.js';
import { type LogSink, silentLog } from '../../env/log-sink.js';
import {
  FORMAT_VERSION,
  type Fsinfo,
  type MetafileRoot,
  mustOpenReadOnly,
} from '../../layout/fsinfo.js';
import { SEGMENT_DATA, SEGMENT_RESERVED } from '../../layout/usage-entry.js';
import { Engine } from '../engine.js';
import { healSlots, readSlots, storeBlocksFor } from './fsinfo-slots.js';
import { InPlaceMedium } from './in-place-medium.js';

export interface FormatRequest {
  readonly sizeBytes: number;
  readonly logBytes: number | undefined;
  readonly uuid: Uint8Array;
  readonly clock: Clock;
}

const FSINFO_BLOCKS = 2;

/** 1/64 of the store, from 4 MiB to 256 MiB, so that fsinfo and log end with a segment. */
function logBlocksFor(storeBlocks: number, logBytes: number | undefined): number {
  const wanted = (logBytes ?? (storeBlocks * BLOCK_BYTES) / 64) / BLOCK_BYTES;
  const least = (4 * MIB) / BLOCK_BYTES;
  const most = Math.min((256 * MIB) / BLOCK_BYTES, Math.floor(storeBlocks / 8));
  const blocks = Math.max(least, Math.min(most, wanted));
  return Math.ceil(blocks / SEGMENT_BLOCKS) * SEGMENT_BLOCKS - FSINFO_BLOCKS;
}

/** Writes a new, empty store. What was on the device is lost. */
export async function formatDevice(device: Device, request: FormatRequest): Promise<void> {
  const storeBlocks = storeBlocksFor(Math.min(device.sizeBytes, request.sizeBytes));
  const sizeBytes = storeBlocks * BLOCK_BYTES;
  if (sizeBytes < STORE_BYTES_MIN || sizeBytes > STORE_BYTES_MAX) {
    throw new StoreError(
      'invalid',
      `${device.name} gives a store of ${formatBytes(sizeBytes)}; it must have ` +
        `${formatBytes(STORE_BYTES_MIN)} to ${formatBytes(STORE_BYTES_MAX)}`,
    );
  }
  if (request.sizeBytes > device.sizeBytes) {
    throw new StoreError(
      'invalid',
      `${device.name} has ${formatBytes(device.sizeBytes)}, too little for a store of ` +
        formatBytes(request.sizeBytes),
    );
  }
  const empty = emptyFsinfo(storeBlocks, logBlocksFor(storeBlocks, request.logBytes), request.uuid);
  // No older fsinfo may be taken for this store's, wherever a crash leaves us.
  await wipeSlots(device, storeBlocks);
  await writeRing(device, empty);
  const medium = new InPlaceMedium(device, empty);
  const engine = new Engine(medium, {
    memoryBytes: 8 * MIB,
    dirtyBytesMax: 4 * MIB,
    cpIntervalMs: 3_600_000,
    clock: request.clock,
    log: silentLog,
  });
  const front = FSINFO_BLOCKS + empty.logBlocks;
  for (let segment = 0; segment * SEGMENT_BLOCKS < front; segment++) {
    const blocks = Array.from({ length: SEGMENT_BLOCKS }, (_, at) => segment * SEGMENT_BLOCKS + at);
    await medium.reserve(segment, blocks, SEGMENT_RESERVED, engine.generation);
  }
  const tail = [storeBlocks - 2, storeBlocks - 1];
  await medium.reserve(storeBlocks / SEGMENT_BLOCKS - 1, tail, SEGMENT_DATA, engine.generation);
  await engine.closeKeepingMedium();
}

async function wipeSlots(device: Device, storeBlocks: number): Promise<void> {
  const zeros = new Uint8Array(BLOCK_BYTES);
  // With both front slots gone the twins are looked for where the device ends: no older store's may
  // stand there.
  const most = storeBlocksFor(device.sizeBytes);
  const blocks = new Set([0, 1, storeBlocks - 2, storeBlocks - 1, most - 2, most - 1]);
  for (const block of blocks) {
    await device.writeDurable(block * BLOCK_BYTES, [zeros]);
  }
}

/**
 * Writes the log ring with zeros: groups of an earlier store are gone, and the ring has its blocks,
 * so that a durable write later does not wait for the file system to find some.
 */
async function writeRing(device: Device, { logStart, logBlocks }: Fsinfo): Promise<void> {
  const zeros = new Uint8Array(4 * MIB);
  const end = logStart + logBlocks;
  for (let block = logStart; block < end; block += zeros.length / BLOCK_BYTES) {
    const bytes = Math.min(zeros.length, (end - block) * BLOCK_BYTES);
    await device.write(block * BLOCK_BYTES, [zeros.subarray(0, bytes)]);
  }
  await device.sync();
}

function emptyFsinfo(storeBlocks: number, logBlocks: number, uuid: Uint8Array): Fsinfo {
  const hole = (height: number): MetafileRoot => ({ words: [0, 0, 0, 0], height });
  return {
    uuid,
    version: FORMAT_VERSION,
    compatible: 0,
    readOnlyCompatible: 0,
    incompatible: 0,
    medium: 'in-place',
    cpNumber: 0,
    epoch: 1,
    lineage: 0,
    logUuid: new Uint8Array(16),
    clean: false,
    storeBlocks,
    logStart: FSINFO_BLOCKS,
    logBlocks,
    replayFrom: 1,
    replayPosition: 0,
    localFrom: 0,
    nextTreeId: 1,
    nextVdiskId: 1,
    freePairs: storeBlocks / (2 * SEGMENT_BLOCKS),
    dataGaps: 0,
    metaGaps: 0,
    usedBlocks: 0,
    pending: [],
    roots: {
      tree: hole(1),
      vdisk: hole(1),
      reference: hole(1),
      usage: hole(heightFor((storeBlocks / SEGMENT_BLOCKS) * 8)),
      map: hole(heightFor(storeBlocks / 8)),
    },
    epochs: [],
  };
}

/**
 * Opens the store on a device, without recovery. @throws {StoreError} invalid, unsupported, device
 */
export async function openDevice(device: Device, log: LogSink): Promise<InPlaceMedium> {
  const outcome = await readSlots(device);
  const { fsinfo } = outcome;
  if (fsinfo.medium !== 'in-place') {
    throw new StoreError('invalid', `${device.name} holds a part of an object log, not a store`);
  }
  if (mustOpenReadOnly(fsinfo)) {
    throw new StoreError(
      'unsupported',
      `${device.name} has features that this program can only read; use a newer one`,
    );
  }
  await healSlots(device, outcome, log);
  return new InPlaceMedium(device, { ...fsinfo, epoch: fsinfo.epoch + 1 });
}
