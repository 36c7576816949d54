/**
 * Watches the splits of some clones over two lives of a server: asks for them once, looks all the
 * time, and says at the end whether all that was promised is so.
 */
import { Violation } from '../../sim/model/violation.js';
import { BLOCK_BYTES, MIB } from '../../src/base/units.js';
import type { Vdisk } from '../../src/control/schemas.js';
import type { Random } from '../../src/env/random.js';
import { sleep } from '../crash-loop/remote-lives.js';
import type { RemoteStore } from '../crash-loop/remote-store.js';
import type { RoundPlan } from './plan-of-round.js';
import { Progress } from './progress.js';

const LOOK_MS = 3;
const SPLIT_MS_MAX = 180_000;
/** A split with a rate takes about so long. */
const RATE_SECONDS = 2;

export interface KillFacts {
  /** Holes over blocks when the splits were asked for. */
  readonly plannedBlocks: number;
  /** Blocks filled in each life, as far as was seen. */
  readonly lives: readonly number[];
  /** Filled since the last consistency point that was seen before the kill. */
  readonly allowedBlocks: number;
  /** Filled more than was planned. */
  readonly againBlocks: number;
  readonly wasUnderWay: boolean;
}

export class SplitWatch {
  readonly #names: readonly string[];
  readonly #answered = new Set<string>();
  readonly #planned = new Map<string, number>();
  readonly #before = new Progress();
  readonly #after = new Progress();
  readonly #ends = new Map<string, number>();
  #wasUnderWay = false;

  constructor(names: readonly string[]) {
    this.#names = names;
  }

  describe(): string {
    const { last, durable } = this.#before;
    const at = [...(last?.positions ?? [])].map(([name, bytes]) => `${name} at ${bytes}`);
    return `${at.join(', ')}; ${last?.filledBlocks} filled, ${durable?.filledBlocks} durable`;
  }

  /** Before any client writes: they can only take holes away. */
  async plan(store: RemoteStore, { how }: RoundPlan): Promise<void> {
    const mode = how === 'copy' ? 'copy' : 'share';
    for (const name of this.#names) {
      const { modes } = await store.call('planSplit', { params: { name }, query: { mode } });
      const [plan] = modes;
      if (plan === undefined) throw new Error(`no plan for ${name}`);
      const bytes = plan.readBytes + plan.sharedBytes;
      this.#planned.set(name, bytes / BLOCK_BYTES);
    }
  }

  get #plannedBlocks(): number {
    return [...this.#planned.values()].reduce((sum, each) => sum + each, 0);
  }

  /** Asks for all the splits; resolves when all were answered. */
  async begin(store: RemoteStore, plan: RoundPlan, names = this.#names): Promise<void> {
    const mode = plan.how === 'copy' ? 'copy' : 'share';
    const bytes = (this.#plannedBlocks * BLOCK_BYTES) / RATE_SECONDS;
    const rate = { rateBytesPerSecond: Math.max(4 * MIB, Math.floor(bytes)) };
    const pace = plan.pace === 'rate' ? rate : { pace: plan.pace };
    const asked = names.map(async (name) => {
      await store.call('splitVdisk', { params: { name }, body: { mode, ...pace } });
      this.#answered.add(name);
    });
    await Promise.all(asked);
  }

  /** Looks until the moment is there. */
  async until(store: RemoteStore, moment: RoundPlan['moment'], random: Random): Promise<void> {
    if (moment === 'begin') return;
    const part = moment === 'filling' ? random.nextFraction() : 0.97;
    const endMs = performance.now() + SPLIT_MS_MAX;
    while (!(await this.#isThere(store, moment, part))) {
      if (performance.now() > endMs) throw new Violation(`no ${moment}: ${this.describe()}`);
      await sleep(LOOK_MS);
    }
    if (moment !== 'filling') await sleep(random.below(moment === 'after' ? 60 : 20));
  }

  async #isThere(store: RemoteStore, moment: string, part: number): Promise<boolean> {
    const positions = await this.#look(store, this.#before);
    const parts = [...positions].map(([name, at]) => at / (this.#ends.get(name) ?? 1));
    const count = parts.filter((each) => each >= (moment === 'after' ? Infinity : part)).length;
    return moment === 'after' ? count === parts.length : count > 0;
  }

  async #look(store: RemoteStore, progress: Progress): Promise<ReadonlyMap<string, number>> {
    const positions = new Map<string, number>();
    for (const name of this.#names) {
      const info = await store.call('getVdisk', { params: { name } });
      const { split } = info;
      if (split !== null) {
        positions.set(name, split.positionBytes);
        this.#ends.set(name, split.endBytes);
        if (split.state === 'paused' || split.state === 'undoing') {
          throw new Violation(`nobody asked that the split of ${name} be ${split.state}`);
        }
      } else if (standsAlone(info)) positions.set(name, Number.POSITIVE_INFINITY);
    }
    const { store: stats } = await store.call('getStats', {});
    const { cpNumber, cpInProgress, splitBlocksFilled: filledBlocks } = stats;
    progress.note({ cpNumber, cpInProgress, filledBlocks, positions });
    return positions;
  }

  /**
   * Looks at a server that was just started, and that nobody has asked for anything.
   * @returns the clones whose split is not there, and had not been answered
   * @throws {Violation} one that was answered is not there, or is less far than was durable
   */
  async lookAfterStart(store: RemoteStore): Promise<string[]> {
    const positions = await this.#look(store, this.#after);
    const lost: string[] = [];
    for (const name of this.#names) {
      const at = positions.get(name);
      const durable = this.#before.durable?.positions.get(name) ?? 0;
      if (at === undefined && (this.#answered.has(name) || durable > 0)) {
        throw new Violation(`the split of ${name} was answered, and is not there any more`);
      }
      if (at === undefined) lost.push(name);
      else if (at < durable) {
        throw new Violation(`the split of ${name} is at ${at}; ${durable} was durable`);
      } else if (at < Number.POSITIVE_INFINITY) this.#wasUnderWay = true;
    }
    return lost;
  }

  async untilEnded(store: RemoteStore): Promise<void> {
    const endMs = performance.now() + SPLIT_MS_MAX;
    for (;;) {
      const positions = await this.#look(store, this.#after);
      const left = this.#names.filter((name) => positions.get(name) !== Number.POSITIVE_INFINITY);
      if (left.length === 0) break;
      if (performance.now() > endMs) {
        throw new Violation(`${left.join(', ')}: no end of the split after ${SPLIT_MS_MAX} ms`);
      }
      await sleep(LOOK_MS);
    }
    // Released in memory; a consistency point makes it so, and whoever deletes asks for it.
    await store.consistencyPoint();
  }

  /** Work, certificates, and a second proof. @throws {Violation} */
  async check(store: RemoteStore): Promise<KillFacts> {
    await this.#look(store, this.#after);
    const plannedBlocks = this.#plannedBlocks;
    const first = this.#before.last?.filledBlocks ?? 0;
    const durable = this.#before.durable?.filledBlocks ?? 0;
    const second = this.#after.last?.filledBlocks ?? 0;
    if (second > plannedBlocks - durable) {
      const done = `${durable} of ${plannedBlocks} blocks were filled and durable`;
      throw new Violation(`${done}, and ${second} more were filled after the kill`);
    }
    for (const name of this.#names) await checkProofs(store, name);
    return {
      plannedBlocks,
      lives: [first, second],
      allowedBlocks: first - durable,
      againBlocks: Math.max(0, first + second - plannedBlocks),
      wasUnderWay: this.#wasUnderWay,
    };
  }
}

async function checkProofs(store: RemoteStore, name: string): Promise<void> {
  const { certificate } = await store.call('getVdisk', { params: { name } });
  if (certificate === null) throw new Violation(`${name} was split, and has no certificate`);
  const { kind, result, refutations, filledCopies, filledShares, compared, excepted } = certificate;
  if (kind !== 'split' || result !== 'proven' || refutations !== 0) {
    throw new Violation(`${name}: certificate ${kind}, ${result}, ${refutations} refutations`);
  }
  if (compared + excepted < filledCopies + filledShares) {
    const filled = filledCopies + filledShares;
    throw new Violation(`${name}: ${filled} blocks filled, ${compared} compared`);
  }
  const proof = await store.call('verifyVdisk', { params: { name }, body: {} });
  const { findings, certificate: second } = proof;
  if (findings.length > 0 || second.result !== 'proven') {
    throw new Violation(`keiki verify ${name}: ${JSON.stringify(findings.slice(0, 3))}`);
  }
}

function standsAlone({ backing, isMerging }: Vdisk): boolean {
  return backing === null && !isMerging;
}
