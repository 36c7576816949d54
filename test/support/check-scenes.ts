/**
 * Stores for tests of the offline check, made by the engine: closed ones, and ones left in the
 * middle of a job. Each is built once; tests work on copies.
 */
import assert from 'node:assert/strict';
import { SimulatedExternals } from '../../sim/world/simulated-externals.js';
import { BLOCK_BYTES, MIB } from '../../src/base/units.js';
import { MemoryDevice } from '../../src/env/memory-device.js';
import { MemoryObjectStore } from '../../src/env/memory-object-store.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { systemClock } from '../../src/env/system-clock.js';
import type { TreeRecord } from '../../src/layout/tree-record.js';
import { checkStore } from '../../src/main/check.js';
import { formatStore, openStore, type StoreSource } from '../../src/main/open-store.js';
import type { Store } from '../../src/main/store.js';
import type { CheckReport } from '../../src/store/check/check-report.js';
import type { CheckOptions } from '../../src/store/check/checker.js';
import { devicePatient, objectsPatient, Surgery } from './store-surgery.js';

export type MediumKind = 'in-place' | 'object-log';
export const MEDIA: readonly MediumKind[] = ['in-place', 'object-log'];

const PREFIX = 'store';
const OPTIONS = { memoryBytes: 32 * MIB, cpIntervalMs: 3_600_000, alone: true };

/** A medium with a store that nobody has open. */
export class Specimen {
  readonly device: MemoryDevice | undefined;
  readonly objects: MemoryObjectStore | undefined;

  constructor(device: MemoryDevice | undefined, objects: MemoryObjectStore | undefined) {
    this.device = device;
    this.objects = objects;
  }

  static blank(kind: MediumKind, sizeBytes: number): Specimen {
    return kind === 'in-place'
      ? new Specimen(new MemoryDevice({ sizeBytes }), undefined)
      : new Specimen(undefined, new MemoryObjectStore());
  }

  /** What is on the medium now, as if the power had failed. */
  copy(): Specimen {
    return new Specimen(this.device?.duplicate(), this.objects?.duplicate());
  }

  get source(): StoreSource {
    if (this.device !== undefined) return { kind: 'device', device: this.device.reopen() };
    const objects = this.objects ?? new MemoryObjectStore();
    return { kind: 'objects', objects, prefix: PREFIX };
  }

  get surgery(): Surgery {
    const { device, objects } = this;
    if (device !== undefined) return new Surgery(devicePatient(device));
    return new Surgery(objectsPatient(objects ?? new MemoryObjectStore(), PREFIX));
  }

  check(options: CheckOptions = {}): Promise<CheckReport> {
    return checkStore(this.source, options);
  }

  open(): Promise<Store> {
    return openStore(this.source, { ...OPTIONS, random: seededRandom(7) });
  }
}

async function newStore(kind: MediumKind, sizeBytes: number): Promise<[Specimen, Store]> {
  const specimen = Specimen.blank(kind, sizeBytes);
  const random = seededRandom(3);
  await formatStore(specimen.source, { sizeBytes, random });
  return [specimen, await specimen.open()];
}

function content(seed: number, blocks: number): Buffer {
  const bytes = Buffer.alloc(blocks * BLOCK_BYTES);
  seededRandom(seed).fill(bytes);
  return bytes;
}

/**
 * Closed in order. golden with snapshots v1 and v2; clone `alone` split by copy; `shared` split by
 * sharing, then overwritten in part; `plain` and, over it, `deep`, which read through; `bare`, all
 * holes.
 */
export async function closedScene(kind: MediumKind): Promise<Specimen> {
  const [specimen, store] = await newStore(kind, 64 * MIB);
  const golden = await store.createVdisk('golden', 8 * MIB);
  await golden.write(0, content(1, 400));
  await golden.write(600 * BLOCK_BYTES, content(2, 100));
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  for (const name of ['alone', 'shared', 'plain', 'bare']) await store.clone('golden@v1', name);
  await golden.write(10 * BLOCK_BYTES, content(3, 20));
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v2' }]);
  await (await store.split('alone', { mode: 'copy' })).done;
  await (await store.split('shared', { mode: 'share' })).done;
  const shared = store.vdisk('shared');
  await shared.write(50 * BLOCK_BYTES, content(4, 30));
  await shared.trim(300 * BLOCK_BYTES, 20 * BLOCK_BYTES);
  await store.vdisk('plain').write(5 * BLOCK_BYTES, content(5, 3));
  await store.snapshot([{ vdisk: 'plain', snapshot: 's' }]);
  const deep = await store.clone('plain@s', 'deep');
  await deep.trim(100 * BLOCK_BYTES, 5 * BLOCK_BYTES);
  await store.resize('deep', 3 * MIB + 512);
  await golden.write(12 * BLOCK_BYTES, content(9, 2));
  await store.vdisk('plain').write(6 * BLOCK_BYTES, content(10, 3));
  await store.idle();
  await store.close();
  return specimen;
}

/** Left with a log to replay: flushed writes small and large, acts, nothing of it in a CP. */
export async function crashedScene(kind: MediumKind): Promise<Specimen> {
  const closed = await closedScene(kind);
  const store = await closed.open();
  const golden = store.vdisk('golden');
  await golden.write(700 * BLOCK_BYTES, content(6, 5));
  await golden.flush();
  await golden.write(1024 * BLOCK_BYTES, content(7, 256));
  await golden.flush();
  await store.clone('golden@v2', 'late');
  await store.vdisk('late').write(0, content(8, 2), { fua: true });
  await store.rename('alone', 'renamed');
  return closed.copy();
}

/** image, and a clone of it with one block of its own. */
export async function externalScene(kind: MediumKind): Promise<Specimen> {
  const specimen = Specimen.blank(kind, 64 * MIB);
  const random = seededRandom(3);
  await formatStore(specimen.source, { sizeBytes: 64 * MIB, random });
  const externals = new SimulatedExternals();
  externals.add('/image', new Uint8Array(MIB).fill(7));
  const store = await openStore(specimen.source, { externals, random, alone: true });
  await store.createExternal('image', '/image');
  const clone = await store.clone('image', 'clone');
  await clone.write(0, new Uint8Array(BLOCK_BYTES).fill(9));
  await store.close();
  return specimen;
}

export type JobName =
  | 'copy split'
  | 'share split'
  | 'whole split'
  | 'undo of a split'
  | 'trim'
  | 'trim of a shared one'
  | 'delete'
  | 'delete of a shared one'
  | 'merge';
export const JOBS: readonly JobName[] = [
  'copy split',
  'share split',
  'whole split',
  'undo of a split',
  'trim',
  'trim of a shared one',
  'delete',
  'delete of a shared one',
  'merge',
];

/** True if the store, as its last CP has it, is in the middle of the job. */
const IN_THE_MIDDLE: Readonly<Record<JobName, (tree: TreeRecord) => boolean>> = {
  'copy split': ({ split }) => split?.mode === 'copy' && split.positionFbn > 0,
  'share split': ({ split }) => split?.mode === 'share' && split.positionFbn > 0,
  'whole split': ({ split, sharedBlocks }) => split !== undefined && sharedBlocks > 0,
  'undo of a split': ({ split }) => split?.phase === 'undoing' && split.positionFbn > 0,
  trim: ({ countedById, goneBelowFbn }) => countedById !== 0 && goneBelowFbn > 0,
  delete: ({ state, goneBelowFbn }) => state === 'dying' && goneBelowFbn > 0,
  'trim of a shared one': ({ countedById, goneBelowFbn }) => countedById !== 0 && goneBelowFbn > 0,
  'delete of a shared one': ({ state, goneBelowFbn }) => state === 'dying' && goneBelowFbn > 0,
  merge: ({ state, goneBelowFbn }) => state === 'deleting' && goneBelowFbn > 0,
};

/** A store cut off in the middle of the job: at the first CP that holds a part of it. */
export async function jobScene(kind: MediumKind, job: JobName): Promise<Specimen> {
  const [specimen, store] = await newStore(kind, 256 * MIB);
  const big = await store.createVdisk('big', 1024 * MIB);
  // One block in each level-1 range: jobs yield after 64 of them.
  for (let range = 0; range < 1024; range++) await big.write(range * MIB, content(range, 1));
  await store.snapshot([{ vdisk: 'big', snapshot: 's' }]);
  await store.clone('big@s', 'clone');
  for (let range = 1; range < 1024; range += 3) await big.write(range * MIB, content(range, 2));
  await store.consistencyPoint();
  await begin(store, job);
  for (let turn = 0; turn < 1000; turn++) {
    // Jobs yield to the event loop: so must we, or they never get on.
    await systemClock.yield();
    await store.consistencyPoint();
    const copy = specimen.copy();
    if (!(await copy.surgery.trees()).some(IN_THE_MIDDLE[job])) continue;
    await store.close();
    return copy;
  }
  assert.fail(`no consistency point held a part of the ${job}`);
}

async function writeEverywhere(store: Store): Promise<void> {
  const clone = store.vdisk('clone');
  for (let at = 8192; at < clone.sizeBytes; at += MIB) await clone.write(at, content(at, 1));
}

async function begin(store: Store, job: JobName): Promise<void> {
  switch (job) {
    case 'copy split':
      await store.split('clone', { mode: 'copy' });
      return;
    case 'share split':
      // Blocks of its own everywhere: nothing can be shared whole.
      await writeEverywhere(store);
      await store.split('clone', { mode: 'share' });
      return;
    case 'whole split':
      await store.vdisk('clone').write(0, content(1, 1));
      await store.split('clone', { mode: 'share' });
      return;
    case 'undo of a split':
      await store.split('clone', { mode: 'copy', pace: 'now' });
      while ((store.show('clone').split?.positionBytes ?? 0) < 300 * MIB) await systemClock.yield();
      void store.cancelSplit('clone', { undo: true });
      return;
    case 'trim of a shared one':
      await store.vdisk('clone').write(0, content(1, 1));
      await (await store.split('clone', { mode: 'share' })).done;
      await store.vdisk('clone').trim(0, 1000 * MIB);
      return;
    case 'delete of a shared one':
      await store.vdisk('clone').write(0, content(1, 1));
      await (await store.split('clone', { mode: 'share' })).done;
      await store.delete('clone');
      return;
    case 'trim':
      // What is cut out is shared: it counts for the clone in the reference file too.
      await writeEverywhere(store);
      await (await store.split('clone', { mode: 'share' })).done;
      await store.vdisk('clone').trim(0, 1000 * MIB);
      return;
    case 'delete':
      await store.delete('clone');
      await store.delete('big@s');
      await store.idle();
      await store.delete('big');
      return;
    case 'merge':
      await store.delete('clone');
      await store.delete('big@s');
  }
}
