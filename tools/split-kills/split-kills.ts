/**
 * Splits of live vdisks, each killed with SIGKILL once, at some moment of its life, and looked at.
 *
 * A round: a golden disk and clones of it, clients, a split of all the clones, the kill, `keiki
 * check`, a start. Then, by looking: nothing that was flushed is lost; the split goes on without
 * being asked, does not do again what was durable, and ends with a certificate that a second proof
 * agrees with. The golden disk is deleted: what is left is what the clones need. Then the clones.
 */
import { createWriteStream, type WriteStream } from 'node:fs';
import { join } from 'node:path';
import { cloneNamed } from '../../sim/acts/admin.js';
import type { Life } from '../../sim/life.js';
import type { ModelDisk } from '../../sim/model/disk.js';
import { Violation } from '../../sim/model/violation.js';
import { checkRecovered } from '../../sim/recovery-check.js';
import { BLOCK_BYTES } from '../../src/base/units.js';
import type { Random } from '../../src/env/random.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { inTime, RemoteLives, sleep } from '../crash-loop/remote-lives.js';
import { RemoteStore } from '../crash-loop/remote-store.js';
import type { Server } from '../crash-loop/server.js';
import { FioClone } from './fio-clone.js';
import { found, type Golden, makeGolden } from './golden.js';
import { KillTally } from './kill-tally.js';
import { startWriters } from './live-writers.js';
import { planOf, type RoundPlan } from './plan-of-round.js';
import { SpaceCount, type SpaceNeed } from './space.js';
import { SplitWatch } from './split-watch.js';

export interface SplitKillsOptions {
  readonly seed: number;
  readonly server: Server;
  /** For the log of all acts. */
  readonly folder: string;
  readonly flags: readonly string[];
  readonly goldenBytes: number;
}

/** Of the chunks in which a kill left nothing open so many are read; at a round's end all. */
const SETTLED_CHANCE = 0.2;
const EVERYTHING = 1;
/** Files of records keep blocks that were needed once, and trees indirect blocks of zeros. */
const KEPT_META_BLOCKS_MAX = 32;

/** What is on the store in one round. */
interface Scene {
  readonly plan: RoundPlan;
  readonly golden: Golden;
  /** Followed by the model. */
  readonly clones: readonly ModelDisk[];
  readonly fio: FioClone | undefined;
  /** Of all the clones. */
  readonly names: readonly string[];
}

export class SplitKills {
  readonly tally = new KillTally();
  readonly #options: SplitKillsOptions;
  readonly #random: Random;
  readonly #lives: RemoteLives;
  readonly #log: WriteStream;
  #store: RemoteStore | undefined;
  /** Of a store without vdisks: metadata that is named, and all that is taken. */
  #emptyMetaBlocks = 0;
  #emptyUsedBlocks = 0;

  constructor(options: SplitKillsOptions) {
    this.#options = options;
    this.#random = seededRandom(options.seed);
    this.#log = createWriteStream(join(options.folder, 'acts.log'));
    this.#lives = new RemoteLives(this.#random, (line) => this.#trace(line));
  }

  /** The server has been started on an empty store. @throws {Violation} */
  async run(rounds: number, onRound: (round: number, said: string) => void): Promise<void> {
    const { server } = this.#options;
    try {
      this.#store = new RemoteStore(server);
      this.#emptyUsedBlocks = await this.#rest();
      this.#emptyMetaBlocks = (await server.check()).counts.metaBlocks;
      for (let round = 0; round < rounds; round++) {
        const plan = planOf(round, this.#random);
        const what = `${plan.how}, ${plan.shape}, ${plan.pace}, killed at ${plan.moment}`;
        this.#trace(`round ${round + 1}: ${what}`);
        onRound(round + 1, `${what}: ${await this.#round(plan)}`);
      }
    } finally {
      await this.#store?.close();
      this.#log.end();
    }
  }

  lines(): string[] {
    return this.tally.lines(this.#lives.parts.coverage.totals.sectorsCompared);
  }

  /** The server is not running, the store is empty. */
  async #round(plan: RoundPlan): Promise<string> {
    const { server, flags } = this.#options;
    server.flags = [...flags, '--store-cp-interval-ms', String(plan.cpIntervalMs)];
    const store = await this.#start();
    const { life, failure } = this.#lives.begin(store);
    const scene = await Promise.race([this.#makeScene(life, store, plan), failure]);
    const watch = new SplitWatch(scene.names);
    await Promise.race([this.#untilKilled(life, store, scene, watch), failure]);
    await server.check();
    const said = await this.#goOn(scene, watch);
    const need = await this.#deleteGolden(scene);
    await this.#checkSpace(scene, need);
    return said;
  }

  async #makeScene(life: Life, store: RemoteStore, plan: RoundPlan): Promise<Scene> {
    const { folder, goldenBytes } = this.#options;
    const golden = await makeGolden(life, goldenBytes, plan.how === 'share');
    const names = { writers: ['web1'], fio: [], siblings: ['web1', 'web2'], deferred: ['web1'] };
    for (const name of names[plan.shape]) await cloneNamed(life, golden.snapshot, name);
    const clones = names[plan.shape].map((name) => found(life.model.find(name)));
    const fio = plan.shape === 'writers' ? undefined : await FioClone.make(store, golden, folder);
    const all = fio === undefined ? names[plan.shape] : [...names[plan.shape], fio.name];
    return { plan, golden, clones, fio, names: all };
  }

  /** Clients, splits, and the kill in the middle of it. */
  async #untilKilled(
    life: Life,
    store: RemoteStore,
    scene: Scene,
    watch: SplitWatch,
  ): Promise<void> {
    const { plan, clones, fio } = scene;
    const { server } = this.#options;
    await watch.plan(store, plan);
    const fibers = startWriters(life, clones);
    await fio?.begin(store, this.#options.seed);
    this.#noteSplits(scene);
    const begun = watch.begin(store, plan);
    // The kill may come before the answer.
    begun.catch(() => undefined);
    if (plan.moment === 'begin') await sleep(this.#random.below(25));
    else await begun;
    const deleted =
      plan.shape === 'deferred' ? this.#deleteDeferred(life, store, scene) : undefined;
    await watch.until(store, plan.moment, this.#random);
    this.#lives.noteKill();
    const killedMs = performance.now();
    await server.kill();
    this.#trace(`killed: ${watch.describe()}`);
    await Promise.allSettled([begun, deleted]);
    await inTime(Promise.all(fibers), 'after the kill', () => life.underWay());
    await fio?.killed(killedMs);
  }

  /** The model is told what is going to be asked for. */
  #noteSplits({ clones, plan }: Scene): void {
    const { model } = this.#lives.parts;
    for (const disk of clones) {
      const { own, isSure } = found(model.foreignBacking(disk));
      const mode = plan.how === 'copy' ? 'copy' : 'share';
      disk.split = { mode, layer: own, isSure, isDurable: false };
    }
  }

  async #deleteDeferred(life: Life, store: RemoteStore, { golden }: Scene): Promise<void> {
    const { name } = golden.snapshot;
    const act = life.model.beginDelete([golden.snapshot]);
    const ask = { params: { name }, query: { inUse: 'defer' } } as const;
    const answer = await life.perform('delete-defer', name, () => store.call('deleteVdisk', ask));
    life.model.endAct(act, life.outcomeOf(answer));
  }

  /** The server again, and the splits to their end, with clients beside them. */
  async #goOn(scene: Scene, watch: SplitWatch): Promise<string> {
    const { plan, clones, fio } = scene;
    const store = await this.#start();
    const lost = await watch.lookAfterStart(store);
    const { parts } = this.#lives;
    await checkRecovered(store, await store.list(), parts, 'cut', SETTLED_CHANCE);
    await fio?.verify(store, this.tally);
    // Nobody had been told that they began.
    if (lost.length > 0) {
      this.#noteSplits({ ...scene, clones: clones.filter(({ name }) => lost.includes(name)) });
      await watch.begin(store, plan, lost);
    }
    const { life, failure } = this.#lives.begin(store);
    const fibers = startWriters(life, clones);
    const work = async (): Promise<void> => {
      await Promise.all([watch.untilEnded(store), fio?.writeAndVerify(store)]);
      life.isStopping = true;
      await Promise.all(fibers);
    };
    await Promise.race([work(), failure]);
    for (const disk of clones) {
      if (disk.split !== undefined) parts.model.endSplit(disk, disk.split);
    }
    const facts = await watch.check(store);
    this.tally.note(plan, facts);
    const { plannedBlocks, lives, allowedBlocks } = facts;
    return `${plannedBlocks} planned, ${lives.join(' + ')} filled, at most ${allowedBlocks} again`;
  }

  /** @returns what the clones need without it */
  async #deleteGolden({ plan, golden, clones, fio }: Scene): Promise<SpaceNeed> {
    const store = found(this.#store);
    const { sizeBytes, name } = golden.vdisk;
    const { model } = this.#lives.parts;
    const count = new SpaceCount(plan.how !== 'copy');
    for (const clone of clones) {
      await count.add(store, { clone: clone.name, golden: name, sizeBytes }, undefined);
    }
    if (fio !== undefined) {
      await count.add(store, { clone: fio.name, golden: name, sizeBytes }, fio.ranges);
    }
    const disks = [golden.vdisk, ...model.snapshotsOf(golden.vdisk)];
    for (const disk of disks) await store.letGo(disk.name);
    const act = model.beginDelete(disks);
    await store.call('deleteVdisk', { params: { name }, query: { inUse: 'defer' } });
    model.endAct(act, 'done');
    return count.need(this.#emptyMetaBlocks);
  }

  /** What is left is what the clones need; then they are deleted, too. */
  async #checkSpace(scene: Scene, need: SpaceNeed): Promise<void> {
    const usedBlocks = (await this.#rest()) - this.#emptyUsedBlocks;
    const { dataBlocks, metaBlocks } = (await this.#options.server.check()).counts;
    const metaMax = need.metaBlocksMax + KEPT_META_BLOCKS_MAX;
    this.#trace(`space: ${dataBlocks} + ${metaBlocks}, ${need.dataBlocks} + ${metaMax} needed`);
    this.tally.noteSpace(metaBlocks, need);
    if (dataBlocks !== need.dataBlocks) {
      throw new Violation(`${dataBlocks} data blocks are left, the clones need ${need.dataBlocks}`);
    }
    if (metaBlocks > metaMax) {
      throw new Violation(`${metaBlocks} metadata blocks are left, at most ${metaMax} are needed`);
    }
    // Metadata is there twice.
    const named = dataBlocks + 2 * (metaBlocks - this.#emptyMetaBlocks);
    if (usedBlocks !== named) {
      throw new Violation(`${usedBlocks} blocks are used, and ${named} named`);
    }
    await this.#checkEmpty(await this.#start(), scene);
  }

  /** The clones are as they should be; without them the store is empty. */
  async #checkEmpty(store: RemoteStore, { clones, fio }: Scene): Promise<void> {
    const { parts } = this.#lives;
    await checkRecovered(store, await store.list(), parts, 'close', EVERYTHING);
    for (const clone of clones) {
      const act = parts.model.beginDelete([clone]);
      await store.delete(clone.name);
      parts.model.endAct(act, 'done');
    }
    if (fio !== undefined) await store.delete(fio.name);
    await this.#rest();
    const after = (await this.#options.server.check()).counts;
    const keptBlocks = after.metaBlocks - this.#emptyMetaBlocks;
    this.#trace(`empty: ${after.dataBlocks} + ${after.metaBlocks}`);
    if (after.dataBlocks > 0 || keptBlocks > KEPT_META_BLOCKS_MAX) {
      const left = `${after.dataBlocks} data blocks and ${keptBlocks} metadata blocks`;
      throw new Violation(`everything was deleted, and ${left} more than at first are left`);
    }
  }

  /**
   * All that goes on in the background is done, and the server stopped in order.
   * @returns the blocks that are used
   */
  async #rest(): Promise<number> {
    const store = found(this.#store);
    await inTime(store.idle(), 'to be idle', () => ['idle']);
    // What one frees is free after the next.
    for (let count = 0; count < 3; count++) await store.consistencyPoint();
    const { store: stats } = await store.call('getStats', {});
    await store.close();
    await this.#options.server.stop();
    const usedBlocks = stats.usedBytes / BLOCK_BYTES;
    this.#trace(`at rest: ${usedBlocks} blocks used`);
    return usedBlocks;
  }

  async #start(): Promise<RemoteStore> {
    await this.#store?.close();
    await this.#options.server.start();
    this.#store = new RemoteStore(this.#options.server);
    return this.#store;
  }

  #trace(line: string): void {
    // After a violation acts that were under way still have something to say.
    if (!this.#log.writableEnded) this.#log.write(`${line}\n`);
  }
}
