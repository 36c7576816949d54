/** What clients do to one vdisk: reads, writes, zeros, flushes, block status. */
import { BLOCK_BYTES, KIB, MIB, SECTOR_BYTES } from '../../src/base/units.js';
import type { Random } from '../../src/env/random.js';
import type { Extent } from '../../src/vdisk/block-target.js';
import type { Answer, Life } from '../life.js';
import type { ModelDisk, WriteUnderWay } from '../model/disk.js';
import { Violation } from '../model/violation.js';

interface Range {
  readonly offset: number;
  readonly length: number;
}

/** Larger zeros than this never overlap another write: see model/disk.ts. */
const OVERLAP_BYTES_MAX = MIB;

// -- where

/** Places that a vdisk of many TiB is written at: both ends of every level of its tree. */
function anchors(sizeBytes: number): number[] {
  const spans = [1, 2, 3, 4].map((level) => 256 ** level * BLOCK_BYTES);
  const found = [0, sizeBytes];
  for (const span of spans) {
    if (span < sizeBytes) found.push(span, Math.floor(sizeBytes / span) * span);
  }
  return found;
}

/** A place for so many bytes, often where others were. */
function drawOffset(random: Random, disk: ModelDisk, length: number): number {
  const { sizeBytes } = disk;
  const room = sizeBytes - length;
  if (room <= 0) return 0;
  if (sizeBytes > 64 * MIB) {
    const places = anchors(sizeBytes);
    const place = places[random.below(places.length)] ?? 0;
    return Math.max(0, Math.min(room, place + (random.below(65) - 32) * BLOCK_BYTES));
  }
  // A few blocks get much, so that writes meet.
  if (random.chance(0.4)) return Math.min(room, random.below(16) * BLOCK_BYTES);
  return random.below(room + 1);
}

const alignDown = (value: number, unit: number): number => Math.floor(value / unit) * unit;

export type WriteKind = 'part' | 'sectors' | 'block' | 'blocks' | 'range' | 'large';

/** A range of this kind that lies within the vdisk; undefined if it is too small for one. */
function drawRange(random: Random, disk: ModelDisk, kind: WriteKind): Range | undefined {
  const { sizeBytes } = disk;
  const make = (length: number, unit: number): Range | undefined => {
    if (length > sizeBytes) return undefined;
    return { offset: alignDown(drawOffset(random, disk, length), unit), length };
  };
  switch (kind) {
    case 'part':
      return make(1 + random.below(Math.min(sizeBytes, 9 * KIB)), 1);
    case 'sectors':
      return make(SECTOR_BYTES * (1 + random.below(24)), SECTOR_BYTES);
    case 'block':
      return make(BLOCK_BYTES, BLOCK_BYTES);
    case 'blocks':
      return make(BLOCK_BYTES * (2 + random.below(14)), BLOCK_BYTES);
    case 'range':
      return make(SECTOR_BYTES * (1 + random.below(512)), SECTOR_BYTES);
    case 'large': {
      const unit = random.chance(0.5) ? BLOCK_BYTES : SECTOR_BYTES;
      // Mostly little more than what makes a write large.
      const span = random.chance(0.8) ? 128 * KIB : MIB;
      return make(64 * KIB + alignDown(random.below(span), unit), unit);
    }
  }
}

function sectorsOf({ offset, length }: Range): { first: number; end: number } {
  return {
    first: Math.floor(offset / SECTOR_BYTES),
    end: Math.ceil((offset + length) / SECTOR_BYTES),
  };
}

function isWhole({ offset, length }: Range): boolean {
  return offset % SECTOR_BYTES === 0 && length % SECTOR_BYTES === 0;
}

/** True if the model can follow this write: see model/disk.ts and model/layer.ts. */
function mayWrite(disk: ModelDisk, range: Range, overlaps: boolean): boolean {
  const { first, end } = sectorsOf(range);
  for (const write of disk.writes) {
    const other = sectorsOf(write);
    if (other.end <= first || end <= other.first) continue;
    const isEasy = isWhole(range) && isWhole(write);
    const isSmall = Math.max(range.length, write.length) <= OVERLAP_BYTES_MAX;
    if (!overlaps || !isEasy || !isSmall) return false;
  }
  if (range.offset % SECTOR_BYTES !== 0 && !disk.isPlain(first)) return false;
  const tail = range.offset + range.length;
  return tail % SECTOR_BYTES === 0 || disk.isPlain(end - 1);
}

/** Draws until a range can be followed. */
function findRange(life: Life, disk: ModelDisk, kind: WriteKind): Range | undefined {
  const { random } = life;
  const overlaps = random.chance(0.05);
  const end = life.endOf(disk);
  for (let turn = 0; turn < 4; turn++) {
    const range = drawRange(random, disk, kind);
    if (range === undefined || range.offset + range.length > end) continue;
    if (mayWrite(disk, range, overlaps)) return range;
  }
  return undefined;
}

// -- writes

function pickVdisk(life: Life): ModelDisk | undefined {
  const found = life.model.vdisks().filter((disk) => life.isReachable(disk));
  // Two vdisks get most of the writes.
  if (found.length > 2 && life.random.chance(0.6)) return found[life.random.below(2)];
  return life.pick(found);
}

const describe = (disk: ModelDisk, { offset, length }: Range): string =>
  `${disk.name} ${offset}+${length}`;

function settleWrite(
  life: Life,
  kind: string,
  write: WriteUnderWay,
  answer: Answer<void>,
  isDurable: boolean,
): void {
  const { disk } = write;
  disk.endWrite(write, life.outcomeOf(answer), isDurable);
  if (answer.kind === 'done' || life.hasStopped || answer.error === 'out-of-space') return;
  if (answer.error === 'external') return;
  if (answer.error === 'not-found' && (disk.isGone || life.isLocked(disk))) return;
  throw life.unexpected(kind, describe(disk, write), answer);
}

export async function writeData(life: Life, kind: WriteKind, fua: boolean): Promise<void> {
  const disk = pickVdisk(life);
  const range = disk === undefined ? undefined : findRange(life, disk, kind);
  if (disk === undefined || range === undefined) return;
  await writeRange(life, disk, range, fua, fua ? 'write-fua' : `write-${kind}`);
}

export async function writeRange(
  life: Life,
  disk: ModelDisk,
  range: Range,
  fua: boolean,
  name: string,
): Promise<Answer<void>> {
  const target = life.handle(disk);
  const { write, data } = disk.beginWrite(range.offset, range.length);
  const what = describe(disk, range);
  const answer = await life.perform(name, `${what} #${write.pieces[0]?.stamp ?? 0}`, () =>
    fua ? target.write(range.offset, data, { fua }) : target.write(range.offset, data),
  );
  settleWrite(life, name, write, answer, fua);
  return answer;
}

export async function writeZeros(life: Life, act: 'trim' | 'write-zeroes'): Promise<void> {
  const { random } = life;
  const disk = pickVdisk(life);
  if (disk === undefined) return;
  const range = random.chance(0.1)
    ? wholeRange(life, disk)
    : findRange(life, disk, random.chance(0.5) ? 'range' : 'blocks');
  if (range === undefined) return;
  await zeroRange(life, disk, range, act, random.chance(0.2));
}

export async function zeroRange(
  life: Life,
  disk: ModelDisk,
  range: Range,
  act: 'trim' | 'write-zeroes',
  fua: boolean,
): Promise<void> {
  const target = life.handle(disk);
  const write = disk.beginZero(range.offset, range.length);
  const { offset, length } = range;
  const answer = await life.perform(act, describe(disk, range), () =>
    act === 'trim'
      ? target.trim(offset, length, { fua })
      : target.writeZeroes(offset, length, { fua }),
  );
  settleWrite(life, act, write, answer, fua);
}

/** All of the vdisk, or from somewhere to its end. */
function wholeRange(life: Life, disk: ModelDisk): Range | undefined {
  const offset = life.random.chance(0.5)
    ? 0
    : alignDown(drawOffset(life.random, disk, SECTOR_BYTES), SECTOR_BYTES);
  const length = life.endOf(disk) - offset;
  return length > 0 && mayWrite(disk, { offset, length }, false) ? { offset, length } : undefined;
}

export async function flush(life: Life): Promise<void> {
  const disk = pickVdisk(life);
  if (disk === undefined) return;
  await flushDisk(life, disk);
}

export async function flushDisk(life: Life, disk: ModelDisk): Promise<void> {
  const target = life.handle(disk);
  const calledAt = life.model.moments.next();
  const answer = await life.perform('flush', disk.name, () => target.flush());
  if (answer.kind === 'done') disk.settle(calledAt);
  else if (!life.hasStopped && !(answer.error === 'not-found' && life.isLocked(disk))) {
    // A full log becomes a consistency point, and that has its own room.
    if (!disk.isGone) throw life.unexpected('flush', disk.name, answer);
  }
}

// -- reads

export async function readSome(life: Life): Promise<void> {
  const { random } = life;
  const disk = life.pick(life.model.disks.filter((each) => life.isReachable(each)));
  if (disk === undefined) return;
  const kind = random.chance(0.1) ? 'large' : random.chance(0.5) ? 'part' : 'range';
  const range = drawRange(random, disk, kind);
  if (range === undefined || range.offset + range.length > life.endOf(disk)) return;
  await readRange(life, disk, range);
}

export async function readRange(life: Life, disk: ModelDisk, range: Range): Promise<void> {
  const target = life.handle(disk);
  const before = life.model.moments.beginRead();
  const bytes = Buffer.alloc(range.length, 0xa5);
  const what = describe(disk, range);
  const answer = await life.perform('read', what, () => target.read(range.offset, bytes));
  life.model.moments.endRead(before);
  if (answer.kind === 'done') {
    life.parts.digest.addBytes(bytes);
    life.parts.coverage.totals.sectorsCompared += Math.ceil(range.length / SECTOR_BYTES);
    disk.checkRead(range.offset, bytes, before);
  } else if (!life.hasStopped && !mayBeGone(life, disk, range, answer)) {
    throw life.unexpected('read', what, answer);
  }
}

/** True if the disk was shrunk while it was being read, or deleted. */
function mayBeGone(
  life: Life,
  disk: ModelDisk,
  { offset, length }: Range,
  answer: Answer<unknown>,
): boolean {
  if (answer.kind === 'done') return false;
  if (answer.error === 'external') return true;
  if (answer.error === 'invalid' && offset + length > disk.sizeBytes) return true;
  if (!(disk.isGone || life.isLocked(disk))) return false;
  return answer.error === 'not-found' || answer.error === 'invalid';
}

/** Block status of a part of a vdisk; what it calls empty must be zeros to a reader. */
export async function askStatus(life: Life): Promise<void> {
  const { random } = life;
  const disk = life.pick(life.model.disks.filter((each) => life.isReachable(each)));
  if (disk === undefined) return;
  const length = SECTOR_BYTES * (1 + random.below(Math.min(disk.sizeBytes / SECTOR_BYTES, 8192)));
  const offset = alignDown(drawOffset(random, disk, length), SECTOR_BYTES);
  if (offset + length > life.endOf(disk)) return;
  const target = life.handle(disk);
  const before = life.model.moments.beginRead();
  const what = `${disk.name} ${offset}+${length}`;
  const answer = await life.perform('status', what, () => target.blockStatus(offset, length));
  life.model.moments.endRead(before);
  if (answer.kind === 'done') checkStatus(disk, { offset, length }, answer.value, before);
  else if (!life.hasStopped && !mayBeGone(life, disk, { offset, length }, answer)) {
    throw life.unexpected('status', what, answer);
  }
}

export function checkStatus(
  disk: ModelDisk,
  range: Range,
  extents: readonly Extent[],
  before: number,
): void {
  let at = range.offset;
  for (const extent of extents) {
    if (extent.offset !== at || extent.length <= 0) {
      throw new Violation(
        `status of ${disk.name}: an extent begins at ${extent.offset}, not ${at}`,
      );
    }
    at += extent.length;
    if (extent.kind !== 'data') disk.checkZeros(extent.offset, extent.length, before, extent.kind);
  }
  const end = range.offset + range.length;
  if (at !== end) throw new Violation(`status of ${disk.name}: ends at ${at}, not ${end}`);
}
