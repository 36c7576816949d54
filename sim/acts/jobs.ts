/**
 * Splits, and what looks at a whole vdisk or store: diff, scan, consistency point, idle, listing.
 */
import { BLOCK_BYTES, SECTOR_BYTES } from '../../src/base/units.js';
import type { SplitJob } from '../../src/main/store.js';
import type { DiffExtent } from '../../src/vdisk/diff.js';
import type { Answer, Life } from '../life.js';
import type { ModelDisk, ModelSplit } from '../model/disk.js';
import { touchedSectors } from '../model/disk.js';
import type { Layer } from '../model/layer.js';
import { Violation } from '../model/violation.js';
import { drawPolicy, type Policy } from './split-control.js';
import { checkCertificate } from './verify.js';

export type SplitMode = 'copy' | 'share';

export async function split(life: Life, mode: SplitMode): Promise<void> {
  const { model, random } = life;
  const free = model.disks.filter((disk) => !disk.isGone && !life.isLocked(disk));
  const clones = free.filter((disk) => model.foreignBacking(disk) !== undefined);
  const disk = life.pick(clones.length > 0 && random.chance(0.97) ? clones : free);
  if (disk !== undefined) await splitDisk(life, disk, mode);
}

/** @returns the job, if the split began */
export async function splitDisk(
  life: Life,
  disk: ModelDisk,
  mode: SplitMode,
  policy?: Policy,
): Promise<Pick<SplitJob, 'done'> | undefined> {
  const { model } = life;
  if (!life.lock([disk], 'exclusive')) return undefined;
  const root = disk.of ?? disk;
  const association = model.foreignBacking(disk);
  const isNew = association !== undefined && root.split === undefined;
  // It may end before the answer is here.
  if (isNew)
    root.split = { mode, layer: association.own, isSure: association.isSure, isDurable: false };
  const mine = root.split;
  // What it reads through with others was deleted since, perhaps in a split: this asks for its end.
  const isShared = association?.isSure === false && model.splitWith(root).length > 0;
  if (mine !== undefined && isShared) mine.isSure = false;
  root.isCancelled = false;
  // One that was paused goes on.
  if (mine !== undefined) mine.paused = mine.paused === undefined ? 'no' : 'perhaps';
  const options = { ...(policy ?? drawPolicy(life.random)), mode };
  const kind = `split-${mode}`;
  const answer = await life.perform(kind, disk.name, () => life.store.split(disk.name, options));
  life.unlock([disk], 'exclusive');
  if (answer.kind === 'done') {
    if (association === undefined) throw life.unexpected(kind, disk.name, answer);
    const split = isNew ? mine : root.split;
    if (split !== undefined) {
      split.isDurable = true;
      split.paused = 'no';
    }
    root.mayBeUndone = false;
    life.parts.coverage.totals.splitsStarted++;
    void life.go(() => watchSplit(life, root, split, answer.value));
    return answer.value;
  }
  if (isNew && life.outcomeOf(answer) === 'failed') root.split = undefined;
  // The last split may just have ended, or what is left below may be merged.
  const isRefused =
    (answer.error === 'invalid' && !(isNew && association.isSure)) ||
    (answer.error === 'in-use' && root.mayBeUndone) ||
    answer.error === 'external';
  if (!isRefused && answer.error !== 'out-of-space' && !life.hasStopped) {
    throw life.unexpected(kind, disk.name, answer);
  }
  return undefined;
}

async function watchSplit(
  life: Life,
  root: ModelDisk,
  split: ModelSplit | undefined,
  job: Pick<SplitJob, 'done'>,
): Promise<void> {
  const answer: Answer<void> = await life.perform('split-end', root.name, () => job.done);
  if (answer.kind === 'done') {
    if (!root.isGone && split !== undefined) {
      life.model.endSplit(root, split);
      await checkCertificate(life, root, split);
    }
  } else if (!root.isGone && !life.hasStopped && !life.isLocked(root) && !life.isStopping) {
    if (split?.isCancelled === true && answer.error === 'not-found') return;
    // A split ends early only with its vdisk, or with the oldest of the vdisk's snapshots.
    root.split = undefined;
    if (answer.error !== 'not-found') {
      throw life.unexpected('split-end', root.name, answer);
    }
  }
}

// -- diff

export async function diff(life: Life): Promise<void> {
  const { model, random } = life;
  const to = life.pick(model.disks.filter((disk) => !disk.isGone && !life.isLocked(disk)));
  if (to === undefined) return;
  const older = model.snapshots().filter((disk) => isPast(disk, to) && !life.isLocked(disk));
  const from = random.chance(0.2) ? undefined : life.pick(older);
  await diffOf(life, from, to);
}

/** True if `to` is a later state of the snapshot. */
function isPast(snapshot: ModelDisk, to: ModelDisk): boolean {
  if (snapshot === to) return false;
  for (let layer = to.layer.below; layer !== undefined; layer = layer.below) {
    if (layer === snapshot.layer) return true;
  }
  return false;
}

export async function diffOf(
  life: Life,
  from: ModelDisk | undefined,
  to: ModelDisk,
): Promise<void> {
  const { model } = life;
  const before = model.moments.beginRead();
  const sizeBytes = to.sizeBytes;
  const layers = layersBetween(from, to);
  const maySplit = from !== undefined && model.maySplitAt(to, from);
  const what = `${from?.name ?? ''} ${to.name}`;
  const answer = await life.perform('diff', what, async () => {
    const extents: DiffExtent[] = [];
    for await (const extent of life.store.diff(from?.name, to.name)) {
      extents.push(extent);
      life.parts.digest.add(extent.kind, extent.offset, extent.length);
    }
    return extents;
  });
  model.moments.endRead(before);
  if (answer.kind === 'done') {
    const isSteady = to.sizeBytes === sizeBytes && !to.isGone && !life.isLocked(to);
    // Whoever was being resized meanwhile may be seen in either size.
    if (isSteady) checkDiff(what, from, { to, sizeBytes, layers, before }, answer.value);
    return;
  }
  const isExplained =
    (answer.error === 'invalid' && maySplit) ||
    answer.error === 'external' ||
    (answer.error === 'not-found' && (to.isGone || from?.isGone === true));
  if (!isExplained && !life.hasStopped) throw life.unexpected('diff', what, answer);
}

/** The layers in which something may have changed: after `from`, up to `to`. */
function layersBetween(from: ModelDisk | undefined, to: ModelDisk): Layer[] {
  const layers: Layer[] = [];
  for (let at: Layer | undefined = to.layer; at !== undefined; at = at.below) {
    if (at === from?.layer) break;
    layers.push(at);
  }
  return layers;
}

interface DiffTarget {
  readonly to: ModelDisk;
  readonly sizeBytes: number;
  readonly layers: readonly Layer[];
  readonly before: number;
}

function checkDiff(
  what: string,
  from: ModelDisk | undefined,
  target: DiffTarget,
  extents: readonly DiffExtent[],
): void {
  const { to, sizeBytes, layers, before } = target;
  let at = 0;
  const reported: [number, number][] = [];
  for (const { offset, length, kind } of extents) {
    if (offset < at || length <= 0 || offset + length > sizeBytes) {
      throw new Violation(`diff ${what}: an extent at ${offset}+${length} is out of place`);
    }
    at = offset + length;
    reported.push([offset / SECTOR_BYTES, at / SECTOR_BYTES]);
    if (kind === 'zero') to.checkZeros(offset, length, before, 'zero by a diff');
    if (from !== undefined) checkReported(what, from, layers, offset, at);
  }
  checkUnreported(what, from, target, reported);
}

/** What is reported was written or cut by somebody. */
function checkReported(
  what: string,
  from: ModelDisk,
  layers: readonly Layer[],
  offset: number,
  end: number,
): void {
  const endBlock = Math.min(Math.ceil(end / BLOCK_BYTES), Math.floor(offset / BLOCK_BYTES) + 4096);
  for (let block = Math.floor(offset / BLOCK_BYTES); block < endBlock; block++) {
    if ((block + 1) * BLOCK_BYTES > from.sizeBytes) return;
    if (layers.some((layer) => layer.mayHaveChanged(block))) continue;
    throw new Violation(`diff ${what}: block ${block} is reported, but no client changed it`);
  }
}

/** What is not reported is the same in both. */
function checkUnreported(
  what: string,
  from: ModelDisk | undefined,
  { to, sizeBytes, before }: DiffTarget,
  reported: readonly [number, number][],
): void {
  const touched = touchedSectors(to.layer, 0, sizeBytes / SECTOR_BYTES);
  let index = 0;
  for (const [start, end] of touched) {
    for (let sector = start; sector < end; sector++) {
      while ((reported[index]?.[1] ?? Number.POSITIVE_INFINITY) <= sector) index++;
      if ((reported[index]?.[0] ?? Number.POSITIVE_INFINITY) <= sector) continue;
      const now = to.layer.candidates(sector, before);
      const then =
        from === undefined || sector * SECTOR_BYTES >= from.sizeBytes
          ? new Set([0])
          : from.layer.candidates(sector, before);
      if ([...now].some((stamp) => then.has(stamp))) continue;
      throw new Violation(
        `diff ${what}: sector ${sector} is not reported; it was ${[...then].join(', ')}, ` +
          `it is ${[...now].join(', ')}`,
      );
    }
  }
}

// -- the whole

export async function scan(life: Life): Promise<void> {
  const disk = life.pick(life.model.disks.filter((each) => !each.isGone && !life.isLocked(each)));
  if (disk === undefined) return;
  const answer = await life.perform('scan', disk.name, () => life.store.scan(disk.name));
  if (answer.kind === 'failed') {
    if (life.hasStopped || (disk.isGone && answer.error === 'not-found')) return;
    if (answer.error === 'external') return;
    throw life.unexpected('scan', disk.name, answer);
  }
  const { readThroughBytes, givesBackBytes } = answer.value;
  life.parts.digest.add('scan', readThroughBytes, givesBackBytes);
  for (const bytes of [readThroughBytes, givesBackBytes]) {
    if (bytes >= 0 && bytes % BLOCK_BYTES === 0) continue;
    throw new Violation(`scan ${disk.name}: ${bytes} bytes`);
  }
}

export async function consistencyPoint(life: Life): Promise<void> {
  const calledAt = life.model.moments.next();
  const answer = await life.perform('consistency-point', '', () => life.store.consistencyPoint());
  if (answer.kind === 'done') life.model.settleAll(calledAt);
  else if (!life.hasStopped) throw life.unexpected('consistency-point', '', answer);
}

export async function idle(life: Life): Promise<void> {
  const deletedBefore = life.model.deletedCount;
  const answer = await life.perform('idle', '', () => life.store.idle());
  if (answer.kind === 'done') life.model.noteIdle(deletedBefore);
  if (answer.kind === 'failed' && !life.hasStopped) throw life.unexpected('idle', '', answer);
}

/** Names, sizes and kinds of everything that no act is changing. */
export async function list(life: Life): Promise<void> {
  const answer = await life.perform('list', '', () => life.store.list());
  if (answer.kind === 'failed') return;
  const listing = new Map(answer.value.map((info) => [info.name, info]));
  const steady = life.model.disks.filter((disk) => !life.isLocked(disk));
  const isRenaming = steady.length < life.model.disks.length;
  for (const disk of steady) life.model.checkInfo(disk, listing.get(disk.name), isRenaming);
}
