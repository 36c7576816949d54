/**
 * Flips single bits of a populated store, one at a time, opens it and reads everything.
 *
 * 1. What is read is right, or it is refused as `corrupt` by the name of the vdisk and the number
 *    of the block. It is never wrong, nor older than what was flushed.
 * 2. In place only a data block can be refused: one bit anywhere else is mended, from the second
 *    copy, the other slot, or the log's own checksum; after a close the check finds nothing but
 *    copies that nobody needed.
 * 3. In an object log, where metadata has one copy, an open may be refused as `corrupt`, too.
 */
import { isStoreError } from '../src/base/store-error.js';
import { BLOCK_BYTES, KIB, MIB, SECTOR_BYTES, SEGMENT_BLOCKS } from '../src/base/units.js';
import type { MemoryDevice } from '../src/env/memory-device.js';
import type { MemoryObjectStore } from '../src/env/memory-object-store.js';
import type { Random } from '../src/env/random.js';
import { seededRandom } from '../src/env/seeded-random.js';
import { checkStore } from '../src/main/check.js';
import { type OpenOptions, openStore, type StoreSource } from '../src/main/open-store.js';
import type { Store } from '../src/main/store.js';
import { Harness } from './harness.js';
import type { MediumKind } from './machine.js';
import type { ModelDisk } from './model/disk.js';
import { AFTER_CUT, CHUNK_SECTORS } from './model/layer.js';
import type { Model } from './model/model.js';
import { Violation } from './model/violation.js';
import { populate } from './script.js';
import { VirtualClock } from './world/virtual-clock.js';

export const PLACES = ['fsinfo', 'log', 'metadata', 'data', 'anywhere'] as const;
export type Place = (typeof PLACES)[number];

export interface RotReport {
  /** Positions tried, by where they are. */
  readonly tried: Record<Place, number>;
  /** Positions after which some block was refused. */
  refused: number;
  /** Positions after which a metadata block was healed. */
  healed: number;
  /** Object log: opens that were refused. */
  closed: number;
}

const OPEN_OPTIONS: OpenOptions = {
  memoryBytes: 4 * MIB,
  cpIntervalMs: 1000,
  alone: true,
};

/** A bit of the medium. */
interface Position {
  readonly key: string;
  readonly offset: number;
  readonly bit: number;
  readonly place: Place;
}

/** @throws {Violation} */
export async function rotBits(
  medium: MediumKind,
  end: 'close' | 'cut',
  positions: number,
  seed: number,
  onPosition?: (text: string) => void,
): Promise<RotReport> {
  const random = seededRandom(seed);
  const report: RotReport = {
    tried: { fsinfo: 0, log: 0, metadata: 0, data: 0, anywhere: 0 },
    refused: 0,
    healed: 0,
    closed: 0,
  };
  const world = new VirtualClock();
  const field = await world.run(prepare(world, medium, end, seed));
  for (let count = 0; count < positions; count++) {
    const position = field.draw(random);
    const { place, key, offset, bit } = position;
    const text = `${place} ${key === '' ? '' : `${key} `}byte ${offset} bit ${bit}`;
    onPosition?.(text);
    report.tried[place]++;
    try {
      await new VirtualClock().run(tryPosition(field, position, report));
    } catch (error) {
      throw new Violation(`${text}: ${String(error)}`, { cause: error });
    }
  }
  return report;
}

interface Field {
  readonly medium: MediumKind;
  readonly model: Model;
  draw(random: Random): Position;
  /** A copy of the medium with this bit flipped. */
  flipped(position: Position): StoreSource;
}

/** A populated store: closed, or left by a cut with work in its log. */
async function prepare(
  world: VirtualClock,
  medium: MediumKind,
  end: 'close' | 'cut',
  seed: number,
): Promise<Field> {
  const harness = new Harness({ world, seed, medium });
  await harness.format();
  const store = await harness.tryOpen({ ...OPEN_OPTIONS, cpIntervalMs: 60_000 }, undefined);
  if (store === undefined) throw new Error('nobody cut the power');
  const life = harness.newLife(store, (error) => {
    throw error;
  });
  await populate(life);
  if (end === 'close') {
    const closedAt = harness.parts.model.moments.next();
    await store.close();
    harness.parts.model.settleAll(closedAt);
    harness.reopen();
  } else harness.cutPower();
  const source = harness.machine.duplicate();
  return source.kind === 'device'
    ? deviceField(source.device as MemoryDevice, harness.parts.model)
    : objectField(source.objects as MemoryObjectStore, source.prefix, harness.parts.model);
}

function deviceField(device: MemoryDevice, model: Model): Field {
  const blocks = findBlocks(device);
  return {
    medium: 'in-place',
    model,
    draw: (random) => {
      const drawn = PLACES[random.below(PLACES.length)] ?? 'anywhere';
      const some = blocks[drawn];
      const block =
        some.length === 0
          ? random.below(device.sizeBytes / BLOCK_BYTES)
          : (some[random.below(some.length)] ?? 0);
      const offset = block * BLOCK_BYTES + random.below(BLOCK_BYTES);
      return { key: '', offset, bit: random.below(8), place: drawn };
    },
    flipped: ({ offset, bit }) => {
      const copy = device.duplicate();
      copy.flipBit(offset, bit);
      return { kind: 'device', device: copy };
    },
  };
}

/** Blocks that are not zeros, by what they are. */
function findBlocks(device: MemoryDevice): Record<Place, number[]> {
  const found: Record<Place, number[]> = {
    fsinfo: [],
    log: [],
    metadata: [],
    data: [],
    anywhere: [],
  };
  const blocks = device.sizeBytes / BLOCK_BYTES;
  const zeros = Buffer.alloc(BLOCK_BYTES);
  const read = (block: number): Buffer => {
    const bytes = Buffer.alloc(BLOCK_BYTES);
    void device.read(block * BLOCK_BYTES, [bytes]);
    return bytes;
  };
  for (let block = 0; block < blocks; block++) {
    const bytes = read(block);
    if (bytes.equals(zeros)) continue;
    found.anywhere.push(block);
    if (block < 2 || block >= blocks - 2) found.fsinfo.push(block);
    else if (block < SEGMENT_BLOCKS) found.log.push(block);
    // Nothing but metadata stands twice.
    else if (bytes.equals(read(block ^ SEGMENT_BLOCKS))) found.metadata.push(block);
    else found.data.push(block);
  }
  return found;
}

function objectField(objects: MemoryObjectStore, prefix: string, model: Model): Field {
  const keys = objects.objects.list(prefix);
  return {
    medium: 'object-log',
    model,
    draw: (random) => {
      const key = keys[random.below(keys.length)] ?? '';
      const length = objects.objects.get(key)?.length ?? 1;
      return { key, offset: random.below(length), bit: random.below(8), place: 'anywhere' };
    },
    flipped: ({ key, offset, bit }) => {
      const copy = objects.duplicate();
      copy.objects.flipBit(key, offset, bit);
      return { kind: 'objects', objects: copy, prefix };
    },
  };
}

async function tryPosition(field: Field, position: Position, report: RotReport): Promise<void> {
  const source = field.flipped(position);
  const clock = new VirtualClock().machine();
  let store: Store;
  try {
    store = await openStore(source, { ...OPEN_OPTIONS, clock, random: seededRandom(1) });
  } catch (error) {
    if (!isStoreError(error, 'corrupt') || field.medium === 'in-place') {
      throw new Violation(`the open is refused: ${String(error)}`);
    }
    report.closed++;
    return;
  }
  let isRefused = false;
  for (const disk of field.model.disks) {
    if (await readDisk(store, disk)) isRefused = true;
  }
  if (isRefused) report.refused++;
  if (field.medium === 'object-log') return;
  if (isRefused && (position.place === 'fsinfo' || position.place === 'metadata')) {
    throw new Violation('a bit of metadata, and data is refused');
  }
  if (store.stats().blocksHealed > 0) report.healed++;
  await store.close();
  if (position.place !== 'metadata' && position.place !== 'fsinfo') return;
  const device = source.kind === 'device' ? (source.device as MemoryDevice).reopen() : undefined;
  if (device !== undefined) await checkMended(device);
}

/** What was read is healed; what nobody needed may be found, as a damaged copy and nothing else. */
async function checkMended(device: MemoryDevice): Promise<void> {
  const report = await checkStore({ kind: 'device', device }, { skipData: true });
  for (const fault of report.faults) {
    if (fault.kind === 'metadata-copy') continue;
    throw new Violation(`after a close: ${fault.kind}: ${fault.message}`);
  }
}

/** @returns true if a block was refused, rightly */
async function readDisk(store: Store, disk: ModelDisk): Promise<boolean> {
  const target = store.vdisk(disk.name);
  if (target.sizeBytes !== disk.sizeBytes) throw new Violation(`${disk.name} has another size`);
  let isRefused = false;
  for (const [from, to] of ranges(disk)) {
    if (await readRange(target, disk, from, to, 0)) isRefused = true;
  }
  return isRefused;
}

/** Reads in pieces of this size; what is refused in smaller ones, down to a block. */
const PIECES = [MIB, 64 * KIB, BLOCK_BYTES] as const;
/** One read at a time. */
const BUFFER = Buffer.alloc(MIB);

async function readRange(
  target: Readable,
  disk: ModelDisk,
  from: number,
  to: number,
  level: number,
): Promise<boolean> {
  const pieceBytes = PIECES[level] ?? BLOCK_BYTES;
  let isRefused = false;
  for (let at = from; at < to; at += pieceBytes) {
    const bytes = BUFFER.subarray(0, Math.min(pieceBytes, to - at)).fill(0xa5);
    const refusal = await tryRead(target, at, bytes);
    if (refusal === undefined) {
      disk.checkRead(at, bytes, AFTER_CUT);
      continue;
    }
    isRefused = true;
    if (pieceBytes > BLOCK_BYTES) {
      await readRange(target, disk, at, at + bytes.length, level + 1);
      continue;
    }
    const wanted = `vdisk ${disk.name}, block ${at / BLOCK_BYTES} `;
    if (refusal.startsWith(wanted)) continue;
    throw new Violation(`${wanted}is refused in other words: ${refusal}`);
  }
  return isRefused;
}

type Readable = { read(offset: number, into: Uint8Array): void | Promise<void> };

/** Undefined when it was read; else why it is refused. */
async function tryRead(
  target: Readable,
  offset: number,
  bytes: Buffer,
): Promise<string | undefined> {
  try {
    await target.read(offset, bytes);
    return undefined;
  } catch (error) {
    if (isStoreError(error, 'corrupt')) return error.message;
    throw error;
  }
}

function ranges(disk: ModelDisk): [number, number][] {
  if (disk.sizeBytes <= 8 * MIB) return [[0, disk.sizeBytes]];
  return [...disk.layer.chunks()]
    .sort((a, b) => a - b)
    .flatMap((chunk): [number, number][] => {
      const from = chunk * CHUNK_SECTORS * SECTOR_BYTES;
      const to = Math.min(disk.sizeBytes, from + CHUNK_SECTORS * SECTOR_BYTES);
      return from < to ? [[from, to]] : [];
    });
}
