/**
 * Compares a store that was just opened with the model, sector by sector; what was read is what the
 * model goes on with.
 */
import { isStoreError } from '../src/base/store-error.js';
import { MIB, SECTOR_BYTES } from '../src/base/units.js';
import type { VdiskInfo } from '../src/main/store-info.js';
import { checkStatus } from './acts/io.js';
import { ZERO_STAMP } from './content.js';
import type { LivingStore, LivingTarget, RunParts } from './life.js';
import type { ModelDisk } from './model/disk.js';
import { AFTER_CUT, CHUNK_SECTORS } from './model/layer.js';
import { Violation } from './model/violation.js';

/** Of larger vdisks what was ever touched is looked at, and its neighbours. */
const WHOLE_BYTES_MAX = 8 * MIB;
const READ_BYTES_MAX = MIB;
/** One vdisk is read at a time. */
const READ_BUFFER = Buffer.alloc(READ_BYTES_MAX);
/** It costs as much as the read. */
const STATUS_CHANCE = 0.25;
/** Of a chunk in which the cut left nothing open: reading all of them is half of a run's cost. */
const SETTLED_CHANCE = 0.35;
const CHUNK_BYTES = CHUNK_SECTORS * SECTOR_BYTES;

/**
 * @param settledChance  of a chunk in which the cut left nothing open to be read all the same
 * @throws {Violation}
 */
export async function checkRecovered(
  store: Pick<LivingStore, 'vdisk'>,
  infos: readonly VdiskInfo[],
  parts: RunParts,
  after: 'cut' | 'close',
  settledChance = SETTLED_CHANCE,
): Promise<void> {
  const { model, digest } = parts;
  const listing = new Map(infos.map((info) => [info.name, info]));
  const happened = model.resolveActs(listing);
  parts.trace?.(`  under way at the end, and there: ${happened.join('; ') || 'nothing'}`);
  model.resolveSplits(listing);
  model.checkListing(listing);
  digest.add('recovered', listing.size, happened.length);
  model.moments.endAllReads();
  const before = after === 'cut' ? AFTER_CUT : model.moments.next();
  // From the bottom up: what reads through a layer is compared with what was read of that.
  const disks = model.disks.sort((a, b) => depthOf(a) - depthOf(b));
  for (const disk of disks) {
    await checkDisk(store.vdisk(disk.name), parts, disk, { before, settledChance });
  }
}

function depthOf(disk: ModelDisk): number {
  return [...disk.layer.lineage()].length;
}

async function checkDisk(
  target: LivingTarget,
  parts: RunParts,
  disk: ModelDisk,
  { before, settledChance }: { readonly before: number; readonly settledChance: number },
): Promise<void> {
  parts.trace?.(`  compares ${disk.name}, ${disk.sizeBytes} bytes`);
  const chunks = new Map<number, Int32Array>();
  const adopt = (sector: number, stamp: number): void => {
    // Zeros are what an empty layer reads as.
    if (stamp === ZERO_STAMP) return;
    const chunk = Math.floor(sector / CHUNK_SECTORS);
    let stamps = chunks.get(chunk);
    if (stamps === undefined) {
      stamps = new Int32Array(CHUNK_SECTORS);
      chunks.set(chunk, stamps);
    }
    stamps[sector % CHUNK_SECTORS] = stamp;
  };
  const open = disk.layer.unsettledChunks();
  const [wanted, rest] = partition(
    chunksOf(disk),
    (chunk) => open.has(chunk) || parts.random.chance(settledChance),
  );
  for (const chunk of rest) adoptUnread(disk, chunk, adopt);
  for (const [from, to] of rangesOf(disk, wanted)) {
    for (let at = from; at < to; at += READ_BYTES_MAX) {
      const bytes = READ_BUFFER.subarray(0, Math.min(READ_BYTES_MAX, to - at)).fill(0xa5);
      await readAll(target, disk.name, at, bytes);
      parts.coverage.totals.sectorsCompared += bytes.length / SECTOR_BYTES;
      disk.checkRead(at, bytes, before, adopt);
    }
  }
  if (parts.random.chance(STATUS_CHANCE)) {
    const extents = await target.blockStatus(0, disk.sizeBytes);
    checkStatus(disk, { offset: 0, length: disk.sizeBytes }, extents, before);
  }
  for (const [chunk, stamps] of chunks) {
    parts.digest.add('chunk', chunk);
    parts.digest.addBytes(new Uint8Array(stamps.buffer));
  }
  disk.writes.clear();
  disk.endSnapshot();
  disk.layer.adopt(chunks);
}

async function readAll(
  target: { read(offset: number, into: Uint8Array): void | Promise<void> },
  name: string,
  offset: number,
  bytes: Buffer,
): Promise<void> {
  try {
    await target.read(offset, bytes);
  } catch (error) {
    if (!isStoreError(error, 'corrupt')) throw error;
    throw new Violation(`${name} at byte ${offset}, after a recovery: ${error.message}`);
  }
}

/** The model goes on with what it knows: there is only one content that the chunk may have. */
function adoptUnread(
  disk: ModelDisk,
  chunk: number,
  adopt: (sector: number, stamp: number) => void,
): void {
  const end = Math.min(disk.sizeBytes / SECTOR_BYTES, (chunk + 1) * CHUNK_SECTORS);
  for (let sector = chunk * CHUNK_SECTORS; sector < end; sector++) {
    adopt(sector, disk.layer.match(sector, AFTER_CUT, () => true) ?? ZERO_STAMP);
  }
}

function partition<T>(items: readonly T[], test: (item: T) => boolean): [T[], T[]] {
  const passed: T[] = [];
  const others: T[] = [];
  for (const item of items) (test(item) ? passed : others).push(item);
  return [passed, others];
}

/** Chunks to look at, in order. */
function chunksOf({ sizeBytes, layer }: ModelDisk): number[] {
  const count = Math.ceil(sizeBytes / CHUNK_BYTES);
  if (sizeBytes <= WHOLE_BYTES_MAX) return Array.from({ length: count }, (_, chunk) => chunk);
  const chunks = layer.chunks();
  // Neighbours of what was written: a tree that grew wrongly shows there.
  for (const chunk of [...chunks]) chunks.add(chunk + 1).add(chunk * 256);
  return [...chunks].filter((chunk) => chunk < count).sort((a, b) => a - b);
}

/** Byte ranges in order, without gaps where they touch. */
function rangesOf({ sizeBytes }: ModelDisk, chunks: readonly number[]): [number, number][] {
  const ranges: [number, number][] = [];
  for (const chunk of chunks) {
    const from = chunk * CHUNK_BYTES;
    const to = Math.min(sizeBytes, from + CHUNK_BYTES);
    const last = ranges.at(-1);
    if (last?.[1] === from) last[1] = to;
    else ranges.push([from, to]);
  }
  return ranges;
}
