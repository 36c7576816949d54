/**
 * Owns the random workload: which acts clients and operators ask for, how often, and how long they
 * think in between. Every seed has tastes of its own, so that rare acts are common in some runs.
 */
import { BLOCK_BYTES, MIB } from '../src/base/units.js';
import type { Random } from '../src/env/random.js';
import {
  clone,
  create,
  DISKS_MAX,
  deleteDeferred,
  deleteDisk,
  deleteOne,
  drawSize,
  rename,
  resize,
  snapshot,
} from './acts/admin.js';
import { cloneExternal, createExternal, deleteExternal, troubleExternal } from './acts/external.js';
import {
  askStatus,
  flush,
  readSome,
  type WriteKind,
  writeData,
  writeRange,
  writeZeros,
  zeroRange,
} from './acts/io.js';
import { consistencyPoint, diff, idle, list, scan, split } from './acts/jobs.js';
import { controlSplit } from './acts/split-control.js';
import { verify } from './acts/verify.js';
import type { Life } from './life.js';

type Act = (life: Life) => Promise<void>;

interface Weighted {
  readonly weight: number;
  readonly act: Act;
}

const write =
  (kind: WriteKind): Act =>
  (life) =>
    writeData(life, kind, false);

const CLIENT_ACTS: readonly Weighted[] = [
  { weight: 10, act: write('part') },
  { weight: 10, act: write('sectors') },
  { weight: 12, act: write('block') },
  { weight: 10, act: write('blocks') },
  { weight: 4, act: write('range') },
  { weight: 4, act: write('large') },
  { weight: 6, act: (life) => writeData(life, life.random.chance(0.5) ? 'block' : 'part', true) },
  { weight: 4, act: (life) => writeZeros(life, 'trim') },
  { weight: 4, act: (life) => writeZeros(life, 'write-zeroes') },
  { weight: 10, act: flush },
  { weight: 16, act: readSome },
  { weight: 3, act: askStatus },
];

const OPERATOR_ACTS: readonly Weighted[] = [
  { weight: 6, act: (life) => create(life) },
  { weight: 12, act: snapshot },
  { weight: 12, act: clone },
  { weight: 3, act: rename },
  { weight: 4, act: (life) => resize(life, 'grow') },
  { weight: 4, act: (life) => resize(life, 'shrink') },
  { weight: 10, act: (life) => split(life, 'copy') },
  { weight: 10, act: (life) => split(life, 'share') },
  { weight: 8, act: controlSplit },
  { weight: 6, act: (life) => deleteDisk(life, 'vdisk') },
  { weight: 9, act: (life) => deleteDisk(life, 'snapshot') },
  { weight: 5, act: diff },
  { weight: 2, act: scan },
  { weight: 3, act: list },
  { weight: 4, act: consistencyPoint },
  { weight: 2, act: idle },
];

/** In one seed of four. */
const DEFERRED: Weighted = { weight: 6, act: deleteDeferred };
/** Up to here seeds are as they were when the deliberate bugs were tried on them. */
const DEFERS_FROM_SEED = 41;

/** In two seeds of three; see DEFERS_FROM_SEED. */
const VERIFY: Weighted = { weight: 8, act: verify };

const EXTERNAL_ACTS: readonly Weighted[] = [
  { weight: 4, act: createExternal },
  { weight: 12, act: cloneExternal },
  { weight: 8, act: troubleExternal },
  { weight: 2, act: deleteExternal },
];

/** What one seed is like. */
export interface Tastes {
  readonly clients: number;
  readonly clientActs: readonly Weighted[];
  readonly operatorActs: readonly Weighted[];
  readonly thinkMs: number;
  readonly operatorThinkMs: number;
}

/** Which acts there are. */
export interface ActChoice {
  /** Some acts belong to some seeds only. */
  readonly seed?: number;
  /** There are images outside of the store. */
  readonly hasExternals?: boolean;
  /** Acts that nobody asks for. */
  readonly without?: readonly Act[];
}

/** Some acts three times as often, some hardly ever. */
function season(acts: readonly Weighted[], random: Random): Weighted[] {
  return acts.map(({ weight, act }) => {
    const factor = [0.2, 1, 1, 1, 3][random.below(5)] ?? 1;
    return { weight: weight * factor, act };
  });
}

/** @param paceMs mean time that a durable act takes on this medium */
export function drawTastes(random: Random, paceMs: number, choice: ActChoice): Tastes {
  const { seed, hasExternals = false, without = [] } = choice;
  const defers = seed !== undefined && seed >= DEFERS_FROM_SEED && seed % 4 === 0;
  const verifies = seed !== undefined && seed >= DEFERS_FROM_SEED && seed % 3 !== 0;
  const acts = [
    ...OPERATOR_ACTS,
    ...(defers ? [DEFERRED] : []),
    ...(verifies ? [VERIFY] : []),
    ...(hasExternals ? EXTERNAL_ACTS : []),
  ];
  const operatorActs = acts.filter(({ act }) => !without.includes(act));
  return {
    clients: 2 + random.below(4),
    clientActs: season(CLIENT_ACTS, random),
    operatorActs: season(operatorActs, random),
    thinkMs: paceMs * ([0.1, 0.5, 1, 4][random.below(4)] ?? 1),
    operatorThinkMs: paceMs * ([0.2, 1, 2, 5][random.below(4)] ?? 1),
  };
}

function draw(acts: readonly Weighted[], random: Random): Act {
  let left = random.nextFraction() * acts.reduce((sum, { weight }) => sum + weight, 0);
  for (const { weight, act } of acts) {
    left -= weight;
    if (left < 0) return act;
  }
  return readSome;
}

/** Asks for acts, one after the other, until the life is to end. */
async function loop(life: Life, acts: readonly Weighted[], thinkMs: number): Promise<void> {
  const { random } = life;
  while (!life.isStopping) {
    await draw(acts, random)(life);
    // Bursts without a pause, and pauses in which background jobs get on.
    if (random.chance(0.5)) await life.sleep(thinkMs * 2 * random.nextFraction());
  }
}

/** Starts clients and operators; each promise resolves when one of them has stopped. */
export function startClients(life: Life, tastes: Tastes): Promise<void>[] {
  const fibers: Promise<void>[] = [];
  for (let index = 0; index < tastes.clients; index++) {
    fibers.push(life.go(() => loop(life, tastes.clientActs, tastes.thinkMs)));
  }
  for (let index = 0; index < 2; index++) {
    fibers.push(life.go(() => loop(life, tastes.operatorActs, tastes.operatorThinkMs)));
  }
  return fibers;
}

/** The first vdisks of a store. */
export async function createFirst(life: Life): Promise<void> {
  for (let count = 0; count < 3; count++) await create(life, drawSize(life));
}

const BALLAST_BYTES = 44 * MIB;

/**
 * Leaves little room in a store, and that in holes: what is freed is soon used again.
 *
 * Where space is not used twice (an object log) it means nothing.
 */
export async function addBallast(life: Life): Promise<void> {
  const before = new Set(life.model.disks);
  await create(life, BALLAST_BYTES);
  const disk = life.model.vdisks().find((each) => !before.has(each));
  if (disk === undefined) return;
  for (let offset = 0; offset < BALLAST_BYTES; offset += MIB) {
    await writeRange(life, disk, { offset, length: MIB }, false, 'write-full');
  }
  await consistencyPoint(life);
  for (let offset = 0; offset < BALLAST_BYTES; offset += MIB) {
    for (let count = 0; count < 4; count++) {
      const at = offset + BLOCK_BYTES * life.random.below(250);
      const range = { offset: at, length: BLOCK_BYTES * (1 + life.random.below(6)) };
      await zeroRange(life, disk, range, 'trim', false);
    }
  }
  await consistencyPoint(life);
}

/**
 * Fills the store until it says that it is full, several times, then makes room again.
 *
 * A part of the workload that ordinary clients would not come to.
 */
export async function fillAndEmpty(life: Life): Promise<void> {
  const { model, random } = life;
  const MANY = 24 << 20;
  let refused = 0;
  const filled: string[] = [];
  while (!life.isStopping && refused < 3) {
    if (model.disks.length >= DISKS_MAX) {
      const victim = life.pick(model.disks.filter((disk) => !filled.includes(disk.name)));
      if (victim === undefined || !(await deleteOne(life, victim))) await life.sleep(1);
      continue;
    }
    const before = new Set(model.disks);
    await create(life, MANY);
    const disk = model.vdisks().find((each) => !before.has(each) && each.sizeBytes === MANY);
    if (disk === undefined) {
      refused++;
      await life.sleep(1);
      continue;
    }
    filled.push(disk.name);
    for (let offset = 0; offset < MANY && refused < 3 && !life.isStopping; offset += 1 << 20) {
      if (disk.isGone || !life.isReachable(disk) || offset + (1 << 20) > life.endOf(disk)) break;
      if (disk.writes.size > 0) break;
      const length = (1 << 20) - 512 * random.below(8);
      const answer = await writeRange(life, disk, { offset, length }, false, 'write-full');
      if (answer.kind === 'failed') refused++;
    }
  }
  // Others meet the full store for a while.
  await life.sleep(20);
  for (const name of filled) {
    const disk = model.find(name);
    if (disk === undefined || life.isStopping) continue;
    for (const snap of model.snapshotsOf(disk)) await deleteOne(life, snap);
    await deleteOne(life, disk);
  }
}
