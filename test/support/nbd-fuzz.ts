/**
 * Sessions of the NBD server beside the naive one of nbd-naive-server.ts, a hundred inputs for each
 * seed:
 *
 * 1. It answers what is foretold, well formed, and each request once.
 * 2. It waits for more or has ended: nothing hangs while the disk and the client are done.
 * 3. When the connection is gone nothing is held, counted or attached any more; and on the way no
 *    more than the limits say.
 * 4. The disk is asked within its bounds, and to write only where that is allowed.
 * 5. Reads see the writes before them, and what was refused has changed nothing.
 */
import assert from 'node:assert/strict';
import { MIB, TIB } from '../../src/base/units.js';
import type { Random } from '../../src/env/random.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import type { BlockTarget, Extent } from '../../src/vdisk/block-target.js';
import { DeferredTarget, MemoryTarget } from './memory-target.js';
import { makeInput } from './nbd-inputs.js';
import {
  type Foreseen,
  type ForeseenEntry,
  type ForeseenRequest,
  foresee,
  type NaiveWorld,
} from './nbd-naive-server.js';
import { type TestClient, TestExports, TestServer, turns } from './nbd-peer.js';
import { type Reply, ReplyReader } from './nbd-replies.js';
import { COMMAND } from './nbd-script.js';

export const INPUTS_PER_SEED = 100;

const LIMITS = {
  optionsMax: 7,
  requestsMax: 5,
  connectionBytesMax: 34 * MIB,
  totalBytesMax: 35 * MIB,
  floorBytes: 128 * 1024,
  unsentBytesMax: 128 * 1024,
};
/** Large reads are answered from here on in their own time: later writes may come first. */
const SPARSE_BYTES = 128 * 1024;

/** Counts of what became of the inputs. */
export interface NbdOutcomes {
  inputs: number;
  options: number;
  entered: number;
  requests: number;
  failed: number;
  waited: number;
  ended: number;
  violated: number;
  heldBytesMax: number;
}

export function newNbdOutcomes(): NbdOutcomes {
  const counts = { inputs: 0, options: 0, entered: 0, requests: 0, failed: 0 };
  return { ...counts, waited: 0, ended: 0, violated: 0, heldBytesMax: 0 };
}

/** Sees that the server asks only for what it may (4). */
class GuardedTarget implements BlockTarget {
  readonly #target: BlockTarget;

  constructor(target: BlockTarget) {
    this.#target = target;
  }

  get name(): string {
    return this.#target.name;
  }

  get sizeBytes(): number {
    return this.#target.sizeBytes;
  }

  get readOnly(): boolean {
    return this.#target.readOnly;
  }

  read(offset: number, into: Uint8Array): void | Promise<void> {
    this.#check(offset, into.length, 32 * MIB);
    return this.#target.read(offset, into);
  }

  write(offset: number, data: Uint8Array): void | Promise<void> {
    this.#checkWrite(offset, data.length, 32 * MIB);
    return this.#target.write(offset, data);
  }

  trim(offset: number, length: number): void | Promise<void> {
    this.#checkWrite(offset, length);
    return this.#target.trim(offset, length);
  }

  writeZeroes(offset: number, length: number): void | Promise<void> {
    this.#checkWrite(offset, length);
    return this.#target.writeZeroes(offset, length);
  }

  flush(): Promise<void> {
    return this.#target.flush();
  }

  blockStatus(offset: number, length: number, extentsMax?: number): Promise<Extent[]> {
    this.#check(offset, length);
    assert.ok(extentsMax === undefined || extentsMax > 0);
    return this.#target.blockStatus(offset, length, extentsMax);
  }

  #check(offset: number, length: number, lengthMax = Number.MAX_SAFE_INTEGER): void {
    const isRange = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
    const isWithin = offset >= 0 && length > 0 && offset + length <= this.sizeBytes;
    assert.ok(isRange && isWithin && length <= lengthMax, `asked for ${length} at ${offset}`);
  }

  #checkWrite(offset: number, length: number, lengthMax?: number): void {
    this.#check(offset, length, lengthMax);
    assert.ok(!this.readOnly, `a write to '${this.name}'`);
  }
}

/** One server with its disks, and the same disks as the model has them. */
class FuzzServer {
  readonly #random: Random;
  readonly #world: NaiveWorld;
  readonly #server: TestServer;
  readonly #deferred: DeferredTarget[] = [];
  readonly #models = new Map<string, MemoryTarget>();

  constructor(random: Random) {
    this.#random = random;
    const plans = [
      { name: 'disk', sizeBytes: MIB + 512, readOnly: false },
      { name: 'golden@v1', sizeBytes: 70_000, readOnly: true },
      { name: 'huge', sizeBytes: 6 * TIB, readOnly: false },
    ];
    const isLate = random.chance(0.3);
    const targets = plans.map((plan) => {
      this.#models.set(plan.name, new MemoryTarget(plan));
      const disk = new MemoryTarget(plan);
      if (!isLate) return new GuardedTarget(disk);
      const deferred = new DeferredTarget(disk);
      this.#deferred.push(deferred);
      return new GuardedTarget(deferred);
    });
    const tls = random.chance(0.7) ? 'off' : random.chance(0.7) ? 'allow' : 'require';
    this.#world = { exports: plans, tls, optionsMax: LIMITS.optionsMax };
    this.#server = new TestServer(new TestExports(targets, 'disk'), LIMITS, tls);
  }

  async tryInput(outcomes: NbdOutcomes): Promise<void> {
    const { bytes, cuts } = makeInput(this.#random, this.#world);
    const foreseen = foresee(bytes, new Set(cuts), this.#world);
    const client = this.#server.connect();
    const seen = await this.#play(client, bytes, cuts, outcomes);
    try {
      await this.#checkState(client, foreseen);
      this.#checkReplies(seen(), foreseen, client.peer.isDestroyed);
      await this.#hangUp(client);
      this.#checkGone(client);
    } catch (error) {
      const cutAt = cuts.length > 100 ? 'every byte' : cuts.join(' ');
      const text = `${String(error)}\nstream ${bytes.toString('hex')} cut at ${cutAt}`;
      throw new Error(text, { cause: error });
    }
    count(outcomes, foreseen);
  }

  /** Sends the stream in pieces; gives what has arrived up to when it is asked. */
  async #play(
    client: TestClient,
    bytes: Buffer,
    cuts: readonly number[],
    outcomes: NbdOutcomes,
  ): Promise<() => Buffer> {
    const random = this.#random;
    const arrived: Buffer[] = [];
    // A client that is slow to take its replies, but not in the middle of what TLS would encrypt.
    const isSlow = this.#world.tls === 'off' && random.chance(0.2);
    let at = 0;
    for (const cut of [...cuts, bytes.length]) {
      if (isSlow && random.chance(0.7)) client.peer.isHolding = true;
      else client.peer.takeHeld();
      // The session owns what it receives.
      client.send(Buffer.from(bytes.subarray(at, cut)));
      at = cut;
      const heldBytes = client.session?.info.heldBytes ?? 0;
      outcomes.heldBytesMax = Math.max(outcomes.heldBytesMax, heldBytes);
      if (random.chance(0.05)) await this.#workALittle();
    }
    client.peer.takeHeld();
    return () => {
      arrived.push(client.peer.takeBytes());
      return Buffer.concat(arrived);
    };
  }

  async #workALittle(): Promise<void> {
    const random = this.#random;
    for (const { waiting } of this.#deferred) {
      while (waiting.length > 0 && random.chance(0.7)) {
        waiting.splice(random.below(waiting.length), 1)[0]?.finish();
      }
    }
    await turns();
  }

  async #settle(client: TestClient): Promise<void> {
    for (let round = 0; round < 1000; round++) {
      for (const deferred of this.#deferred) await deferred.finishAll();
      await turns();
      client.peer.takeHeld();
      const isWorking = this.#deferred.some(({ waiting }) => waiting.length > 0);
      if (!isWorking && client.session?.info.requestsInFlight === 0) return;
    }
    assert.fail('requests are under way for ever');
  }

  /** (2) */
  async #checkState(client: TestClient, { end }: Foreseen): Promise<void> {
    await this.#settle(client);
    const { session, peer, isDone, state } = client;
    assert.equal(session?.info.requestsInFlight, 0);
    if (end !== 'waits') {
      assert.ok(isDone && (peer.isEnded || peer.isDestroyed), `it ${end}, and is in ${state}`);
      return;
    }
    assert.ok(state === 'handshake' || state === 'transmission', `it waits, and is in ${state}`);
    assert.ok(!peer.isPaused, 'it waits and does not read');
    assert.equal(session?.info.unsentBytes, 0);
  }

  async #hangUp(client: TestClient): Promise<void> {
    if (this.#random.chance(0.5)) client.session?.endOfInput();
    else client.peer.destroy();
    await this.#settle(client);
  }

  /** (3) */
  #checkGone(client: TestClient): void {
    const { budget, exports } = this.#server;
    assert.ok(client.isDone, 'it is not done when the connection is gone');
    assert.equal(budget.usedBytes, 0);
    assert.equal(exports.attachedNames.length, exports.detachedNames.length);
  }

  /** (1) */
  #checkReplies(bytes: Buffer, foreseen: Foreseen, isDestroyed: boolean): void {
    let answered: ReadonlyMap<bigint, Reply> = new Map();
    // A client that is cut off gets what has left already, and that is taken from it here.
    if (isDestroyed) assert.equal(foreseen.end, 'violated');
    else answered = this.#readAll(bytes, foreseen);
    const { entry, requests } = foreseen;
    if (entry === undefined) return;
    for (const request of requests) this.#carryOut(request, entry, answered.get(request.cookie));
  }

  #readAll(bytes: Buffer, { options, entry, requests, end }: Foreseen): Map<bigint, Reply> {
    const answered = new Map<bigint, Reply>();
    const reader = new ReplyReader(bytes, entry?.style);
    assert.equal(reader.greeting(), 3);
    for (const { option, types } of options) {
      const replies = types.map(() => reader.optionReply());
      assert.deepEqual(
        replies.map((reply) => [reply.option, reply.type]),
        types.map((type) => [option, type]),
      );
    }
    if (entry?.replyBytes !== undefined) reader.take(entry.replyBytes);
    if (entry === undefined) {
      assert.equal(reader.restBytes, 0);
      return answered;
    }
    const open = new Map(requests.map((request) => [request.cookie, request]));
    // Whoever gives two requests the same cookie cannot tell their replies apart.
    if (open.size < requests.length) return answered;
    while (reader.restBytes > 0) {
      const reply = reader.reply(open);
      assert.ok(!answered.has(reply.cookie), 'a second reply');
      assert.equal(reply.error, open.get(reply.cookie)?.error, `the error of ${reply.cookie}`);
      answered.set(reply.cookie, reply);
    }
    if (end !== 'violated') assert.equal(answered.size, requests.length);
    return answered;
  }

  /** Does what was asked for to the model, and compares (5). */
  #carryOut(request: ForeseenRequest, { found, style }: ForeseenEntry, reply?: Reply): void {
    const { type, length, error, payload } = request;
    const model = this.#models.get(found.name);
    const offset = Number(request.offset);
    if (error !== 0 || length === 0 || model === undefined) return;
    if (type === COMMAND.write) model.write(offset, payload);
    if (type === COMMAND.trim || type === COMMAND.zeroes) model.writeZeroes(offset, length);
    const isInOrder = this.#deferred.length === 0 && (length < SPARSE_BYTES || style === 'simple');
    if (reply === undefined) return;
    if (type === COMMAND.read && isInOrder) {
      const expected = Buffer.alloc(length);
      model.read(offset, expected);
      assert.ok(reply.data?.equals(expected), `${length} bytes read at ${offset}`);
    }
    if (type !== 7) return;
    assert.deepEqual([...reply.contexts.keys()], [...request.contextIds].sort());
    for (const extents of reply.contexts.values()) {
      const covered = extents.reduce((sum, extent) => sum + extent.length, 0);
      assert.ok(covered > 0 && covered <= length, `${covered} of ${length} bytes are told`);
    }
  }
}

function count(outcomes: NbdOutcomes, { options, entry, requests, end }: Foreseen): void {
  outcomes.inputs++;
  outcomes.options += options.length;
  outcomes.entered += entry === undefined ? 0 : 1;
  outcomes.requests += requests.length;
  outcomes.failed += requests.filter(({ error }) => error !== 0).length;
  if (end === 'waits') outcomes.waited++;
  else if (end === 'ends') outcomes.ended++;
  else outcomes.violated++;
}

export async function tryNbdInputs(seed: number, outcomes: NbdOutcomes): Promise<void> {
  const server = new FuzzServer(seededRandom(seed));
  for (let index = 0; index < INPUTS_PER_SEED; index++) {
    try {
      await server.tryInput(outcomes);
    } catch (error) {
      throw new Error(`seed ${seed}, input ${index}: ${String(error)}`, { cause: error });
    }
  }
  const { connectionBytesMax } = LIMITS;
  // Replies are never refused: they are few, and free what they answer.
  assert.ok(outcomes.heldBytesMax <= connectionBytesMax + MIB, `${outcomes.heldBytesMax} held`);
}
