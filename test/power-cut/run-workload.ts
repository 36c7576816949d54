/**
 * Works on a store in a real file, from a seed, and tells what it asks for and what was answered:
 *
 *   tsx test/power-cut/run-workload.ts STORE SEED STEPS
 *
 * The store is formatted first. It ends without closing it, as if the power had failed.
 */
import { writeSync } from 'node:fs';
import { MIB } from '../../src/base/units.js';
import { openFileDevice } from '../../src/env/file-device.js';
import type { Random } from '../../src/env/random.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { formatStore, openStore } from '../../src/main/open-store.js';
import type { Store } from '../../src/main/store.js';
import { type Answer, putStamp, SECTOR_BYTES, type Step } from './story.js';

/** Without the number that `ask` gives it. */
type Question<T> = T extends Step ? Omit<T, 'id'> : never;

const STDOUT = 1;
const STORE_BYTES = 64 * MIB;
const VDISK_BYTES = 6 * MIB;
const VDISK_SECTORS = VDISK_BYTES / SECTOR_BYTES;
const STEPS_AT_ONCE = 8;
/** Nobody writes to a slot that somebody is writing to: versions of a sector have an order. */
const SLOT_SECTORS = 512;

const [path = '', seed = '1', steps = '100'] = process.argv.slice(2);

function tell(line: Step | Answer): void {
  writeSync(STDOUT, `${JSON.stringify(line)}\n`);
}

class Workload {
  readonly #store: Store;
  readonly #random: Random;
  readonly #busy = new Set<string>();
  #lastId = 1;
  #names = 0;

  constructor(store: Store, random: Random) {
    this.#store = store;
    this.#random = random;
  }

  async run(stepCount: number): Promise<void> {
    await this.#act({ step: 'create', name: 'golden' }, () =>
      this.#store.createVdisk('golden', VDISK_BYTES),
    );
    const workers = Array.from({ length: STEPS_AT_ONCE }, async () => {
      while (this.#lastId < stepCount) await this.#one();
    });
    await Promise.all(workers);
  }

  async #one(): Promise<void> {
    const dice = this.#random.below(100);
    const vdisk = this.#pick('vdisk');
    if (dice < 60 && vdisk !== undefined) return this.#write(vdisk, dice < 6);
    if (dice < 78 && vdisk !== undefined) {
      return this.#act({ step: 'flush', name: vdisk }, () => this.#store.vdisk(vdisk).flush());
    }
    if (dice < 80) {
      return this.#act({ step: 'point', name: '' }, () => this.#store.consistencyPoint());
    }
    if (dice < 86 && vdisk !== undefined) return this.#snapshot(vdisk);
    if (dice < 91) return this.#clone();
    if (dice < 96) return this.#split(vdisk);
    return this.#delete();
  }

  async #write(vdisk: string, isTrim: boolean): Promise<void> {
    const slot = this.#random.below(VDISK_SECTORS / SLOT_SECTORS);
    const key = `${vdisk}/${slot}`;
    if (this.#busy.has(key)) return;
    this.#busy.add(key);
    const sectors = this.#random.chance(0.2)
      ? 1 + this.#random.below(SLOT_SECTORS)
      : 1 + this.#random.below(24);
    const sector = slot * SLOT_SECTORS + this.#random.below(SLOT_SECTORS - sectors + 1);
    const fua = this.#random.chance(0.1);
    const target = this.#store.vdisk(vdisk);
    await this.#act({ step: 'write', vdisk, sector, sectors, isTrim, fua }, (id) => {
      const offset = sector * SECTOR_BYTES;
      const length = sectors * SECTOR_BYTES;
      if (isTrim) return target.trim(offset, length, { fua });
      const words = new Uint32Array(length / 4);
      for (let at = 0; at < sectors; at++) putStamp(words, at, id, sector + at);
      return target.write(offset, new Uint8Array(words.buffer), { fua });
    });
    this.#busy.delete(key);
  }

  async #snapshot(vdisk: string): Promise<void> {
    if (this.#store.list().length > 12 || this.#isBusy(vdisk)) return;
    const snapshot = `s${++this.#names}`;
    await this.#act({ step: 'snapshot', name: `${vdisk}@${snapshot}`, of: vdisk }, () =>
      this.#store.snapshot([{ vdisk, snapshot }]),
    );
  }

  async #clone(): Promise<void> {
    const of = this.#pick('snapshot');
    if (of === undefined || this.#store.list().length > 12) return;
    const name = `c${++this.#names}`;
    await this.#act({ step: 'clone', name, of }, () => this.#store.clone(of, name));
  }

  async #split(name: string | undefined): Promise<void> {
    if (name === undefined || this.#store.show(name).backing === undefined) return;
    const mode = this.#random.chance(0.5) ? 'copy' : 'share';
    await this.#act({ step: 'split', name, mode }, () => this.#store.split(name, { mode }));
  }

  async #delete(): Promise<void> {
    const name = this.#pick(this.#random.chance(0.5) ? 'snapshot' : 'vdisk');
    if (name === undefined || name === 'golden' || this.#isBusy(name)) return;
    const info = this.#store.show(name);
    const hasSnapshots = this.#store.list().some((each) => each.name.startsWith(`${name}@`));
    if (hasSnapshots || info.holders.length > 1) return;
    await this.#act({ step: 'delete', name }, () => this.#store.delete(name));
  }

  /** Tells the question, asks it, tells that it was answered. What is refused stays unanswered. */
  async #act(question: Question<Step>, ask: (id: number) => unknown): Promise<void> {
    const id = ++this.#lastId;
    tell({ ...question, id });
    try {
      await ask(id);
    } catch {
      // Somebody deleted it a moment ago, or it is held: either is the store's right.
      return;
    }
    tell({ step: 'answer', id });
  }

  #isBusy(vdisk: string): boolean {
    for (const key of this.#busy) if (key.startsWith(`${vdisk}/`)) return true;
    return false;
  }

  #pick(kind: 'vdisk' | 'snapshot'): string | undefined {
    const names = this.#store.list().filter((each) => each.kind === kind);
    return names[this.#random.below(Math.max(1, names.length))]?.name;
  }
}

const device = await openFileDevice(path, {
  create: { sizeBytes: STORE_BYTES, preallocate: false },
});
await formatStore({ kind: 'device', device });
const store = await openStore(
  { kind: 'device', device },
  { memoryBytes: 8 * MIB, cpIntervalMs: 50 },
);
tell({ step: 'open', id: 1, name: '' });
await new Workload(store, seededRandom(Number(seed))).run(Number(steps));
process.exit(0);
