/** What somebody may ask of a split under way: pause, resume, change, cancel, undo. */
import type { Random } from '../../src/env/random.js';
import type { SplitOptions } from '../../src/main/store.js';
import type { Answer, Life } from '../life.js';
import type { ModelDisk, ModelSplit } from '../model/disk.js';

export type Policy = Omit<SplitOptions, 'mode'>;

export type SplitAct = 'pause' | 'resume' | 'change' | 'cancel' | 'undo';

/** Mostly as fast as it can: a run is short. */
export function drawPolicy(random: Random): Policy {
  const isReserved = random.chance(0.8);
  const draw = random.nextFraction();
  if (draw < 0.55) return { pace: 'now', isReserved };
  if (draw < 0.75) return { pace: 'balanced', isReserved };
  if (draw < 0.85) return { pace: 'idle', isReserved };
  if (draw < 0.97) {
    return { pace: 'rate', rateBytesPerSecond: (1 + random.below(64)) * 1024 * 1024, isReserved };
  }
  const fromMinute = random.below(1440);
  const toMinute = (fromMinute + 1 + random.below(1439)) % 1440;
  return { window: { fromMinute, toMinute }, isReserved };
}

export async function controlSplit(life: Life): Promise<void> {
  const { model, random } = life;
  const splitting = model
    .vdisks()
    .filter((disk) => !disk.isGone && !life.isLocked(disk) && disk.split !== undefined);
  const disk = life.pick(splitting);
  if (disk !== undefined) await actOnSplit(life, disk, () => drawAct(random));
}

function drawAct(random: Random): SplitAct {
  const draw = random.below(8);
  if (draw < 2) return 'pause';
  if (draw < 5) return 'resume';
  if (draw < 6) return 'change';
  return random.chance(0.6) ? 'undo' : 'cancel';
}

/** @param choice  asked once the vdisk is locked */
export async function actOnSplit(
  life: Life,
  disk: ModelDisk,
  choice: () => SplitAct,
  options?: SplitOptions,
): Promise<void> {
  const { split } = disk;
  if (split === undefined || !life.lock([disk], 'exclusive')) return;
  for (const other of life.model.splitWith(disk)) {
    if (other.split === undefined) continue;
    // It may be one split, and what becomes of it is not known.
    Object.assign(other.split, { paused: 'perhaps', isDurable: false, isCancelled: true });
  }
  const act = choice();
  if (act === 'pause') await pause(life, disk, split);
  else if (act === 'resume') await resume(life, disk, split);
  else if (act === 'change') await change(life, disk, options);
  else await cancel(life, disk, split, act === 'undo');
  life.unlock([disk], 'exclusive');
}

async function pause(life: Life, disk: ModelDisk, split: ModelSplit): Promise<void> {
  split.paused = 'perhaps';
  const answer = await life.perform('split-pause', disk.name, () => {
    return life.store.pauseSplit(disk.name);
  });
  if (answer.kind === 'done') split.paused = 'yes';
  else expectEnd(life, 'split-pause', disk, answer);
}

async function resume(life: Life, disk: ModelDisk, split: ModelSplit): Promise<void> {
  split.paused = 'perhaps';
  const answer = await life.perform('split-resume', disk.name, () => {
    return life.store.resumeSplit(disk.name);
  });
  if (answer.kind === 'done') split.paused = 'no';
  else expectEnd(life, 'split-resume', disk, answer);
}

async function change(life: Life, disk: ModelDisk, options?: SplitOptions): Promise<void> {
  const change = options ?? drawChange(life.random);
  const answer = await life.perform('split-change', disk.name, () => {
    return life.store.changeSplit(disk.name, change);
  });
  if (answer.kind === 'failed') expectEnd(life, 'split-change', disk, answer);
}

function drawChange(random: Random): SplitOptions {
  const mode = random.chance(0.5) ? 'copy' : 'share';
  return { ...drawPolicy(random), mode };
}

async function cancel(
  life: Life,
  disk: ModelDisk,
  split: ModelSplit,
  undo: boolean,
): Promise<void> {
  const wasDurable = split.isDurable;
  split.isDurable = false;
  split.isCancelled = true;
  if (undo) disk.mayBeUndone = true;
  const kind = undo ? 'split-undo' : 'split-cancel';
  const answer = await life.perform(kind, disk.name, () => {
    return life.store.cancelSplit(disk.name, { undo });
  });
  if (answer.kind === 'done') {
    life.parts.coverage.totals.splitsCancelled++;
    // Over what was deleted of its own it may have been the next split: the first one had ended.
    if (life.model.foreignBacking(disk)?.isSure !== true) split.layer.mayBeCut = true;
    if (disk.split === split) disk.split = undefined;
    disk.isCancelled = true;
    return;
  }
  if (life.outcomeOf(answer) === 'failed') {
    split.isCancelled = false;
    split.isDurable = wasDurable;
  }
  // What is being merged away below cannot be had back.
  if (undo && answer.error === 'in-use') return;
  expectEnd(life, kind, disk, answer);
}

/** It may have ended before anybody knew, or be undone already. */
function expectEnd(life: Life, kind: string, disk: ModelDisk, answer: Answer<void>): void {
  if (answer.kind === 'done' || life.hasStopped) return;
  const isExplained =
    answer.error === 'invalid' ||
    answer.error === 'out-of-space' ||
    (answer.error === 'not-found' && disk.isGone);
  if (!isExplained) throw life.unexpected(kind, disk.name, answer);
}
