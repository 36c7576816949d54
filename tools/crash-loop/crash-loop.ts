/**
 * A server under load, killed with SIGKILL again and again. The load is that of the simulator: its
 * acts, over libnbd and the control API, against its model; beside it fio and SQLite.
 *
 * A round: load; kill, at a random moment or in the middle of an act of a kind; `keiki check` of
 * what is left; now and then a start that is killed in its recovery; a start, after which every
 * sector of every vdisk is compared: each holds what was flushed last, or something newer that was
 * issued.
 *
 * 1. A seed draws acts, moments and kinds. The machine's speed decides what meets, so that another
 *    run of the seed is alike, not the same: a failure keeps the store as the kill left it.
 */
import { execFileSync } from 'node:child_process';
import { createWriteStream, type WriteStream } from 'node:fs';
import { join } from 'node:path';
import { cloneNamed, createNamed, snapshotNamed } from '../../sim/acts/admin.js';
import { writeRange } from '../../sim/acts/io.js';
import { idle, splitDisk } from '../../sim/acts/jobs.js';
import type { Life, RunParts } from '../../sim/life.js';
import type { ModelDisk } from '../../sim/model/disk.js';
import { checkRecovered } from '../../sim/recovery-check.js';
import { createFirst, drawTastes, startClients, type Tastes } from '../../sim/workload.js';
import { MIB } from '../../src/base/units.js';
import type { Random } from '../../src/env/random.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import type { OutsideLoad } from './outside-load.js';
import { inTime, RemoteLives, sleep } from './remote-lives.js';
import { RemoteStore } from './remote-store.js';
import type { Server } from './server.js';
import { Tally } from './tally.js';

export interface CrashLoopOptions {
  readonly seed: number;
  readonly server: Server;
  /** For the log of all acts, and the store as the last kill left it. */
  readonly folder: string;
  readonly loads: readonly OutsideLoad[];
  /** False for a block device: it is not copied. */
  readonly keepsStore: boolean;
}

/** Mean of what clients think, for the tastes of a life; and how many more there are of them. */
const PACE_MS = 0.3;
const CLIENTS_MORE = 5;
const LIFE_MS_MIN = 150;
const LIFE_MS_MAX = 1500;
/** A kind that nobody asks for in this life is not waited for. */
const KIND_MS_MAX = 3000;
/** What a kill is wanted in the middle of. */
const KINDS = [
  'split-copy',
  'split-share',
  'snapshot',
  'clone',
  'delete-vdisk',
  'delete-snapshot-0',
  'delete-snapshot-1',
  'grow',
  'shrink',
  'rename',
  'create',
  'diff',
  'consistency-point',
  'flush',
  'write-large',
] as const;
const BIG_BYTES = 24 * MIB;
/** Of the chunks in which a kill left nothing open: all are read. */
const EVERYTHING = 1;

export class CrashLoop {
  readonly tally = new Tally();
  readonly #options: CrashLoopOptions;
  readonly #random: Random;
  readonly #lives: RemoteLives;
  readonly #parts: RunParts;
  readonly #log: WriteStream;
  #store: RemoteStore | undefined;
  /** Told of each act that begins. */
  #onAct: (kind: string) => void = () => undefined;
  #bigCount = 0;

  constructor(options: CrashLoopOptions) {
    this.#options = options;
    this.#random = seededRandom(options.seed);
    this.#log = createWriteStream(join(options.folder, 'acts.log'));
    this.#lives = new RemoteLives(this.#random, (line) => this.#trace(line));
    this.#parts = this.#lives.parts;
  }

  lines(): string[] {
    return this.tally.lines(this.#parts.coverage);
  }

  /** The server has been started on an empty store. @throws {Violation} */
  async run(rounds: number, onRound: (round: number, said: string) => void): Promise<void> {
    try {
      for (let round = 1; round <= rounds; round++) {
        this.#trace(`round ${round}`);
        const said = await this.#round(await this.#newStore(), round);
        await this.#startAgain(round);
        this.tally.rounds++;
        onRound(round, said);
      }
      await this.#endInOrder(await this.#newStore());
    } finally {
      await this.#store?.close();
      this.#log.end();
    }
  }

  /** Clients of the server that runs now; those of the last one are let go. */
  async #newStore(): Promise<RemoteStore> {
    await this.#store?.close();
    this.#store = new RemoteStore(this.#options.server);
    return this.#store;
  }

  /** Load, until the server is killed. */
  async #round(store: RemoteStore, round: number): Promise<string> {
    const { loads, server } = this.#options;
    const { life, failure } = this.#lives.begin(store);
    const tastes = this.#drawTastes();
    const work = async (): Promise<string> => {
      if (round === 1) await createFirst(life);
      const load = loads[(round - 1) % Math.max(1, loads.length)];
      await load?.begin(store, this.#options.seed + round);
      await this.#beginSplits(life);
      const fibers = startClients(life, tastes);
      const moment = await this.#momentToKill();
      const underWay = life.underWay();
      this.#lives.noteKill();
      const killedMs = performance.now();
      await server.kill();
      this.tally.noteKill(underWay);
      const kinds = underWay.map((text) => text.split(' ')[1] ?? '');
      this.#trace(`killed ${moment}; under way: ${underWay.join('; ') || 'nothing'}`);
      await inTime(Promise.all(fibers), 'after the kill', () => life.underWay());
      await load?.killed(killedMs);
      return `killed ${moment}, under way: ${kinds.join(', ') || 'nothing'}`;
    };
    return Promise.race([work(), failure]);
  }

  #drawTastes(): Tastes {
    const tastes = drawTastes(this.#random, PACE_MS, { without: [idle] });
    return { ...tastes, clients: tastes.clients + CLIENTS_MORE };
  }

  /** Splits that a server took up again are watched; a large one begins in most rounds. */
  async #beginSplits(life: Life): Promise<void> {
    const { model } = life;
    for (const disk of model.vdisks()) {
      const mode = disk.split?.mode;
      if (mode !== undefined) await splitDisk(life, disk, mode);
    }
    const source = await this.#bigSnapshot(life);
    if (source === undefined || this.#random.chance(0.25)) return;
    const name = `big${++this.#bigCount}`;
    await cloneNamed(life, source, name);
    const clone = model.find(name);
    if (clone === undefined) return;
    await splitDisk(life, clone, this.#random.chance(0.7) ? 'copy' : 'share');
  }

  /** A snapshot with much in it; the acts of earlier rounds may have deleted it. */
  async #bigSnapshot(life: Life): Promise<ModelDisk | undefined> {
    const { model } = life;
    const find = (): ModelDisk | undefined =>
      model.snapshots().find((disk) => disk.ownName === 'base' && !disk.isGone);
    const found = find();
    if (found !== undefined) return found;
    const name = `big${++this.#bigCount}`;
    await createNamed(life, name, BIG_BYTES);
    const disk = model.find(name);
    if (disk === undefined) return undefined;
    for (let offset = 0; offset < BIG_BYTES; offset += MIB) {
      await writeRange(life, disk, { offset, length: MIB }, false, 'write-full');
    }
    await snapshotNamed(life, [disk], 'base');
    return find();
  }

  async #momentToKill(): Promise<string> {
    const random = this.#random;
    if (random.chance(0.4)) {
      const ms = LIFE_MS_MIN + random.below(LIFE_MS_MAX - LIFE_MS_MIN);
      await sleep(ms);
      return `after ${ms} ms`;
    }
    await sleep(LIFE_MS_MIN + random.below(LIFE_MS_MAX / 2));
    const wanted = KINDS[random.below(KINDS.length)] ?? 'flush';
    const begun = new Promise<string>((resolve) => {
      this.#onAct = (kind) => {
        if (kind === wanted) resolve(`in ${wanted}`);
      };
    });
    const moment = await Promise.race([
      begun,
      sleep(KIND_MS_MAX).then(() => `for want of ${wanted}`),
    ]);
    this.#onAct = () => undefined;
    // What an act takes over a socket is about this.
    await sleep(random.chance(0.3) ? 0 : random.below(8));
    return moment;
  }

  /** Checks what the kill left, starts the server, and compares everything. */
  async #startAgain(round: number): Promise<void> {
    const { server, loads } = this.#options;
    this.#keepStore();
    while (this.#random.chance(0.3)) {
      await server.startUntilOpen();
      await sleep(this.#random.below(60));
      await server.kill();
      this.tally.killsInStart++;
      this.#trace('killed while starting');
    }
    await server.check();
    await server.start();
    const store = await this.#newStore();
    await this.#compare(store, 'cut');
    const load = loads[(round - 1) % Math.max(1, loads.length)];
    if (load !== undefined) this.tally.noteLoad(load.name, await load.verify(store));
  }

  async #compare(store: RemoteStore, after: 'cut' | 'close'): Promise<void> {
    const infos = await store.list();
    await checkRecovered(store, infos, this.#parts, after, EVERYTHING);
  }

  /** SIGTERM: all that was answered is there, flushed or not. */
  async #endInOrder(store: RemoteStore): Promise<void> {
    const { server } = this.#options;
    const { life, failure } = this.#lives.begin(store);
    const fibers = startClients(life, this.#drawTastes());
    await Promise.race([sleep(LIFE_MS_MAX / 2), failure]);
    life.isStopping = true;
    const ended = inTime(Promise.all(fibers), 'at the end', () => life.underWay());
    await Promise.race([ended, failure]);
    // Splits go on: nobody waits for them any more.
    this.#lives.noteKill();
    await server.stop();
    await server.check();
    await server.start();
    await this.#compare(await this.#newStore(), 'close');
    await server.stop();
  }

  #keepStore(): void {
    const { keepsStore, server, folder } = this.#options;
    if (!keepsStore) return;
    const copy = join(folder, 'store-as-killed');
    execFileSync('cp', ['--sparse=always', '--reflink=auto', server.storePath, copy]);
  }

  /** Lines of a life: `time number kind what` where an act begins. */
  #trace(line: string): void {
    // After a violation acts that were under way still have something to say.
    if (!this.#log.writableEnded) this.#log.write(`${line}\n`);
    const kind = line.split(' ')[2];
    if (kind !== undefined) this.#onAct(kind);
  }
}
