/** What operators do: create, snapshot, clone, rename, resize, delete. */
import { BLOCK_BYTES, GIB, KIB, MIB, PIB, SECTOR_BYTES, TIB } from '../../src/base/units.js';
import type { Answer, Life } from '../life.js';
import type { ModelDisk } from '../model/disk.js';
import type { ActUnderWay } from '../model/model.js';

export const DISKS_MAX = 14;

const SIZES = [
  SECTOR_BYTES,
  3 * SECTOR_BYTES,
  BLOCK_BYTES,
  3 * BLOCK_BYTES + SECTOR_BYTES,
  64 * KIB,
  MIB - SECTOR_BYTES,
  MIB,
  MIB + SECTOR_BYTES,
  MIB + 300 * KIB + 5 * SECTOR_BYTES,
  2 * MIB + BLOCK_BYTES + SECTOR_BYTES,
  3 * MIB,
];
const HUGE_SIZES = [5 * GIB + SECTOR_BYTES, TIB, 20 * TIB + 7 * SECTOR_BYTES, PIB];

export function drawSize(life: Life): number {
  const { random } = life;
  const huge = HUGE_SIZES.filter((size) => size <= life.parts.sizeBytesMax);
  const sizes = random.chance(0.12) ? huge : SIZES;
  if (random.chance(0.2)) return SECTOR_BYTES * (1 + random.below((2 * MIB) / SECTOR_BYTES));
  return sizes[random.below(sizes.length)] ?? MIB;
}

/** Asks for an act and tells the model what came of it. */
export async function ask<T>(
  life: Life,
  kind: string,
  act: ActUnderWay,
  body: () => Promise<T>,
): Promise<Answer<Awaited<T>>> {
  const answer = await life.perform(kind, act.what, body);
  life.model.endAct(act, life.outcomeOf(answer));
  return answer;
}

/** An act may be refused for lack of space; anything else needs a reason. */
export function expectDone(life: Life, kind: string, what: string, answer: Answer<unknown>): void {
  if (answer.kind === 'done' || answer.error === 'out-of-space' || life.hasStopped) return;
  if (answer.error === 'external') return;
  throw life.unexpected(kind, what, answer);
}

let nameCount = 0;

/** Names count up within a run. */
export function resetNames(): void {
  nameCount = 0;
}

export const newName = (start: string): string => `${start}${++nameCount}`;

export async function create(life: Life, sizeBytes = drawSize(life)): Promise<void> {
  if (life.model.disks.length < DISKS_MAX) await createNamed(life, newName('d'), sizeBytes);
}

export async function createNamed(life: Life, name: string, sizeBytes: number): Promise<void> {
  const act = life.model.beginCreate(name, sizeBytes);
  const answer = await ask(life, 'create', act, () => life.store.createVdisk(name, sizeBytes));
  expectDone(life, 'create', name, answer);
}

export const isFree = (life: Life, disk: ModelDisk): boolean =>
  !disk.isGone && !life.isLocked(disk);

export async function snapshot(life: Life): Promise<void> {
  const { model, random } = life;
  if (model.disks.length >= DISKS_MAX) return;
  const free = model.vdisks().filter((disk) => isFree(life, disk));
  const wanted = random.chance(0.3) ? 2 + random.below(2) : 1;
  const disks = new Set<ModelDisk>();
  for (let turn = 0; turn < wanted; turn++) {
    const disk = life.pick(free);
    if (disk !== undefined) disks.add(disk);
  }
  if (disks.size > 0) await snapshotNamed(life, [...disks], newName('s'));
}

export async function snapshotNamed(
  life: Life,
  disks: readonly ModelDisk[],
  name: string,
): Promise<void> {
  if (!life.lock(disks, 'exclusive')) return;
  const act = life.model.beginSnapshot(disks.map((disk) => ({ disk, name })));
  const items = disks.map((disk) => ({ vdisk: disk.name, snapshot: name }));
  const kind = disks.length > 1 ? 'snapshot-group' : 'snapshot';
  const answer = await ask(life, kind, act, () => life.store.snapshot(items));
  life.unlock(disks, 'exclusive');
  expectDone(life, kind, act.what, answer);
}

export async function clone(life: Life): Promise<void> {
  if (life.model.disks.length >= DISKS_MAX) return;
  const source = life.pick(life.model.sources().filter((disk) => isFree(life, disk)));
  if (source !== undefined) await cloneNamed(life, source, newName('c'));
}

export async function cloneNamed(life: Life, source: ModelDisk, name: string): Promise<void> {
  if (!life.lock([source], 'shared')) return;
  // A clone of a clone's snapshot has an act of its own in the matrix.
  const kind = source.layer.below === undefined ? 'clone' : 'clone-of-clone';
  const act = life.model.beginClone(source, name);
  const answer = await ask(life, kind, act, () => life.store.clone(source.name, name));
  life.unlock([source], 'shared');
  expectDone(life, kind, act.what, answer);
}

export async function rename(life: Life): Promise<void> {
  const disk = life.pick(life.model.disks.filter((each) => isFree(life, each)));
  if (disk !== undefined) await renameTo(life, disk, newName('r'));
}

export async function renameTo(life: Life, disk: ModelDisk, ownName: string): Promise<void> {
  if (!life.lock([disk], 'exclusive')) return;
  const name = disk.of === undefined ? ownName : `${disk.of.name}@${ownName}`;
  const act = life.model.beginRename(disk, name);
  const oldName = disk.name;
  const answer = await ask(life, 'rename', act, () => life.store.rename(oldName, name));
  life.unlock([disk], 'exclusive');
  expectDone(life, 'rename', act.what, answer);
}

export async function resize(life: Life, direction: 'grow' | 'shrink'): Promise<void> {
  const disk = life.pick(life.model.vdisks().filter((each) => isFree(life, each)));
  if (disk === undefined) return;
  const sizeBytes = drawNewSize(life, disk, direction);
  if (sizeBytes !== undefined) await resizeTo(life, disk, sizeBytes);
}

function drawNewSize(
  life: Life,
  disk: ModelDisk,
  direction: 'grow' | 'shrink',
): number | undefined {
  const { random } = life;
  if (direction === 'grow') {
    // Mostly by little: to where it ended before a shrink, or near it.
    if (random.chance(0.7) && disk.sizeBytes < 3 * MIB) {
      return disk.sizeBytes + SECTOR_BYTES * (1 + random.below(1024));
    }
    const larger = drawSize(life);
    return larger > disk.sizeBytes ? larger : undefined;
  }
  const sectors = disk.sizeBytes / SECTOR_BYTES;
  if (sectors < 2) return undefined;
  if (random.chance(0.5)) return SECTOR_BYTES * (1 + random.below(Math.min(sectors - 1, 6144)));
  return SECTOR_BYTES * Math.max(1, sectors - 1 - random.below(Math.min(sectors - 1, 64)));
}

export async function resizeTo(life: Life, disk: ModelDisk, sizeBytes: number): Promise<void> {
  const isBusy = [...disk.writes].some((write) => write.offset + write.length > sizeBytes);
  if (isBusy || !life.lock([disk], 'exclusive')) return;
  life.setShrinksTo(disk, sizeBytes);
  const kind = sizeBytes < disk.sizeBytes ? 'shrink' : 'grow';
  const act = life.model.beginResize(disk, sizeBytes);
  const answer = await ask(life, kind, act, () => life.store.resize(disk.name, sizeBytes));
  // A store that has stopped may or may not have shrunk it: nobody asks any more.
  if (life.outcomeOf(answer) !== 'lost') life.setShrinksTo(disk, undefined);
  life.unlock([disk], 'exclusive');
  expectDone(life, kind, act.what, answer);
}

export async function deleteDisk(life: Life, kind: 'vdisk' | 'snapshot'): Promise<void> {
  const { model, random } = life;
  const free = model.disks.filter((disk) => disk.kind === kind && isFree(life, disk));
  // Mostly one that may go; now and then one that has to be refused.
  const easy = free.filter((disk) => model.mustStay(disk) !== 'certainly');
  const disk = life.pick(easy.length > 0 && random.chance(0.95) ? easy : free);
  if (disk !== undefined) await deleteOne(life, disk);
}

/** @returns true if it is gone */
export async function deleteOne(life: Life, disk: ModelDisk): Promise<boolean> {
  if (!life.lock([disk], 'exclusive')) return false;
  const { model } = life;
  const kind = deleteKind(life, disk);
  const mustStay = model.mustStay(disk);
  const holders = model.holdersOf(disk);
  const act = model.beginDelete([disk]);
  const answer = await ask(life, kind, act, () => life.store.delete(disk.name));
  life.unlock([disk], 'exclusive');
  if (answer.kind === 'done') {
    // Meanwhile others may have let go of it.
    const isHeld = holders.length === 0 || holders.filter((each) => holds(each, disk)).length > 1;
    if (mustStay === 'certainly' && isHeld) throw life.unexpected(kind, act.what, answer);
    return true;
  }
  if (answer.error === 'in-use') {
    if (mustStay === undefined) throw life.unexpected(kind, act.what, answer);
  } else expectDone(life, kind, act.what, answer);
  return false;
}

/** Deletes what others need, too: they go on without its name. */
export async function deleteDeferred(life: Life): Promise<void> {
  const { model, random } = life;
  // An external backing store is refused as long as somebody needs it.
  const free = model.disks.filter((disk) => disk.kind !== 'external' && isFree(life, disk));
  const held = free.filter((disk) => model.mustStay(disk) !== undefined);
  const disk = life.pick(held.length > 0 && random.chance(0.8) ? held : free);
  if (disk !== undefined) await deleteInUse(life, disk, random.chance(0.6) ? 'defer' : 'split');
}

export async function deleteInUse(
  life: Life,
  disk: ModelDisk,
  inUse: 'defer' | 'split',
): Promise<void> {
  const { model } = life;
  const disks = [disk, ...model.snapshotsOf(disk)];
  const holders = inUse === 'split' ? holdersOf(life, disks) : [];
  if (!life.lock([...disks, ...holders], 'exclusive')) return;
  for (const holder of holders) {
    const { own, isSure = false } = model.foreignBacking(holder) ?? {};
    // From now on it may be split, and may have been at any time.
    holder.isCancelled = false;
    if (own !== undefined) holder.split ??= { mode: 'share', layer: own, isSure, isDurable: false };
  }
  const act = model.beginDelete(disks);
  const { name } = disk;
  const kind = `delete-${inUse}`;
  const answer = await ask(life, kind, act, () => life.store.delete(name, { inUse }));
  life.unlock([...disks, ...holders], 'exclusive');
  expectDone(life, kind, act.what, answer);
}

/** The vdisks whose own lineage hangs on one of these. */
function holdersOf({ model }: Life, disks: readonly ModelDisk[]): ModelDisk[] {
  const layers = new Set(disks.map(({ layer }) => layer));
  return model.vdisks().filter((each) => model.hangsOn(each, layers));
}

/** True if it is there, and will still read through the other one for certain. */
function holds(disk: ModelDisk, other: ModelDisk): boolean {
  if (disk.isGone || disk.isLeaving || (disk.of ?? disk).split !== undefined) return false;
  for (let layer = disk.layer.below; layer !== undefined; layer = layer.below) {
    if (layer === other.layer) return true;
  }
  return false;
}

function deleteKind(life: Life, disk: ModelDisk): string {
  if (disk.kind === 'vdisk') return 'delete-vdisk';
  if (disk.kind === 'external') return 'delete-external';
  const holders = life.model.holdersOf(disk).length;
  if (holders > 1) return 'delete-in-use';
  return holders === 1 ? 'delete-snapshot-1' : 'delete-snapshot-0';
}
