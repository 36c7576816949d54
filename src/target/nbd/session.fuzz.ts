/**
 * The server's sessions beside a naive model, from a seed.
 *
 * Sound clients: each works in a region of its own, never on bytes of a request in flight, so that
 * the model knows what every read must return. The disk is done in any order, chunks are cut
 * anywhere, clients take their replies when they like, and limits are tight.
 *
 * Hostile clients: sound streams with bytes changed, lost and repeated. Nothing may be thrown, and
 * nothing may be held when they are gone.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DeferredTarget, MemoryTarget } from '../../../test/support/memory-target.js';
import { type TestClient, TestExports, TestServer, turns } from '../../../test/support/nbd-peer.js';
import { type Reply, ReplyReader } from '../../../test/support/nbd-replies.js';
import {
  BLOCK_STATUS,
  COMMAND,
  enter,
  request,
  requestOf,
  type TestRequest,
} from '../../../test/support/nbd-script.js';
import { KIB, MIB } from '../../base/units.js';
import type { Random } from '../../env/random.js';
import { seededRandom } from '../../env/seeded-random.js';

const REGION_BYTES = 2 * MIB;
const LIMITS = {
  requestsMax: 12,
  connectionBytesMax: 34 * MIB,
  totalBytesMax: 35 * MIB,
  floorBytes: 128 * KIB,
  unsentBytesMax: 256 * KIB,
};

interface Region {
  readonly start: number;
  /** The client may ask what is mapped. */
  readonly hasContexts: boolean;
}

/** A client that knows what its region holds. */
class SoundClient {
  readonly #random: Random;
  readonly #client: TestClient;
  readonly #start: number;
  readonly #hasContexts: boolean;
  readonly model = Buffer.alloc(REGION_BYTES);
  readonly #open = new Map<bigint, TestRequest & { start: number; end: number }>();
  #unread = Buffer.alloc(0);
  #unsent = Buffer.alloc(0);
  #cookie = 0n;
  answered = 0;

  constructor(random: Random, client: TestClient, region: Region) {
    this.#random = random;
    this.#client = client;
    this.#start = region.start;
    this.#hasContexts = region.hasContexts;
  }

  get isIdle(): boolean {
    return this.#open.size === 0 && this.#unsent.length === 0;
  }

  /** Asks for something that touches no byte of a request in flight. */
  ask(): void {
    const random = this.#random;
    const length = random.chance(0.2) ? 1 + random.below(512 * KIB) : 1 + random.below(9000);
    const start = random.below(REGION_BYTES - length + 1);
    const end = start + length;
    for (const open of this.#open.values()) if (start < open.end && open.start < end) return;
    const types = [0, 0, 0, 1, 1, 1, 3, 4, 6, this.#hasContexts ? BLOCK_STATUS : 0];
    const type = types[random.below(10)] ?? 0;
    const cookie = ++this.#cookie;
    const flags = random.chance(0.1) ? 1 : 0;
    const fields = { type, flags, cookie, offset: this.#start + start, length, start, end };
    if (type === COMMAND.write) {
      const payload = Buffer.alloc(length, 1 + random.below(255));
      this.#open.set(cookie, { ...fields, payload });
      this.#queue(requestOf(this.#client.style, { ...fields, payload }));
    } else {
      this.#open.set(cookie, fields);
      this.#queue(requestOf(this.#client.style, fields));
    }
  }

  #queue(bytes: Buffer): void {
    this.#unsent = Buffer.concat([this.#unsent, bytes]);
  }

  /** Sends a part of what there is to send, if it is read. */
  send(): void {
    if (this.#client.peer.isPaused || this.#unsent.length === 0) return;
    const random = this.#random;
    const most = random.chance(0.5) ? this.#unsent.length : Math.min(this.#unsent.length, 100);
    const length = 1 + random.below(most);
    const chunk = Buffer.from(this.#unsent.subarray(0, length));
    this.#unsent = this.#unsent.subarray(length);
    this.#client.send(chunk);
  }

  take(): void {
    const { peer } = this.#client;
    if (this.#random.chance(0.3)) peer.isHolding = true;
    else peer.takeHeld();
    this.#unread = Buffer.concat([this.#unread, peer.takeBytes()]);
    const reader = new ReplyReader(this.#unread, this.#client.style);
    while (reader.restBytes > 0) this.#check(reader.reply(this.#open));
    this.#unread = Buffer.alloc(0);
  }

  #check({ cookie, error, data, contexts }: Reply): void {
    const open = this.#open.get(cookie);
    assert.ok(open !== undefined, `a reply to ${cookie}, which is not open`);
    this.#open.delete(cookie);
    this.answered++;
    assert.equal(error, 0);
    const { type, start, end, payload } = open;
    if (type === COMMAND.read) assert.ok(data?.equals(this.model.subarray(start, end)));
    else if (type === COMMAND.write) this.model.set(payload ?? [], start);
    else if (type === COMMAND.trim || type === COMMAND.zeroes) this.model.fill(0, start, end);
    else if (type === BLOCK_STATUS) this.#checkStatus(start, contexts.get(1) ?? []);
  }

  #checkStatus(start: number, extents: readonly { length: number; flags: number }[]): void {
    let at = start;
    for (const { length, flags } of extents) {
      const zeroes = this.model.subarray(at, at + length).every((byte) => byte === 0);
      assert.ok(flags === 0 || zeroes, 'a hole reads as zeroes');
      at += length;
    }
    assert.ok(at > start);
  }
}

async function runSound(seed: number): Promise<number> {
  const random = seededRandom(seed);
  const disk = new MemoryTarget({ name: 'disk', sizeBytes: 4 * REGION_BYTES });
  const deferred = new DeferredTarget(disk);
  const server = new TestServer(new TestExports([random.chance(0.7) ? deferred : disk]), LIMITS);
  const clients = [0, 1, 2, 3].map((index) => {
    const hasContexts = index !== 1;
    const headers = { structured: index === 0 || index === 2, extended: index > 1 };
    const contexts = hasContexts ? { contexts: ['base:allocation'] } : {};
    const client = server.enter('disk', { ...headers, ...contexts });
    const region = { start: index * REGION_BYTES, hasContexts };
    return new SoundClient(random, client, region);
  });
  const step = async (mayAsk: boolean): Promise<void> => {
    for (const client of clients) {
      if (mayAsk && random.chance(0.6)) client.ask();
      client.send();
    }
    while (deferred.waiting.length > 0 && random.chance(0.7)) {
      deferred.waiting.splice(random.below(deferred.waiting.length), 1)[0]?.finish();
    }
    if (random.chance(0.5)) await turns();
    for (const client of clients) client.take();
  };
  for (let round = 0; round < 400; round++) await step(true);
  for (let round = 0; round < 20_000 && !clients.every(({ isIdle }) => isIdle); round++) {
    await step(false);
  }
  await deferred.finishAll();
  for (const [index, client] of clients.entries()) {
    assert.ok(client.isIdle, 'every request is answered');
    const stored = Buffer.alloc(REGION_BYTES);
    disk.read(index * REGION_BYTES, stored);
    assert.ok(stored.equals(client.model), `the region of client ${index}`);
  }
  return clients.reduce((sum, { answered }) => sum + answered, 0);
}

/** A stream that makes sense, damaged here and there. */
function damaged(random: Random): Buffer {
  const structured = random.chance(0.5);
  const parts = [enter('disk', structured ? { structured, contexts: ['base:allocation'] } : {})];
  for (let index = 0; index < 10; index++) {
    const type = random.below(9);
    const length = random.below(8192);
    const fields = { type, flags: random.below(4), cookie: 1n, offset: random.below(MIB), length };
    parts.push(request(type === 1 ? { ...fields, payload: Buffer.alloc(length, 7) } : fields));
  }
  let bytes = Buffer.concat(parts);
  for (let count = random.below(4); count >= 0; count--) {
    const at = random.below(random.chance(0.7) ? 200 : bytes.length);
    const cut = at + random.below(40);
    switch (random.below(4)) {
      case 0:
        bytes[at] = random.below(256);
        break;
      case 1:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(cut)]);
        break;
      case 2:
        bytes = Buffer.concat([bytes.subarray(0, cut), bytes.subarray(at)]);
        break;
      default:
        bytes.writeUInt32BE(0xffffffff, Math.min(at, bytes.length - 4));
    }
  }
  return bytes;
}

async function runHostile(seed: number): Promise<void> {
  const random = seededRandom(seed);
  const disk = new MemoryTarget({ name: 'disk', sizeBytes: MIB });
  const deferred = new DeferredTarget(disk);
  const server = new TestServer(new TestExports([deferred]), LIMITS);
  for (let round = 0; round < 20; round++) {
    const client = server.connect();
    const bytes = damaged(random);
    for (let at = 0; at < bytes.length; ) {
      const length = 1 + random.below(random.chance(0.5) ? 50 : 5000);
      client.send(Buffer.from(bytes.subarray(at, at + length)));
      at += length;
      if (random.chance(0.1)) await deferred.finishAll();
    }
    if (random.chance(0.5)) client.session?.endOfInput();
    await deferred.finishAll();
    client.peer.destroy();
    await turns();
    await deferred.finishAll();
    assert.ok(client.isDone);
    assert.equal(server.budget.usedBytes, 0);
  }
}

describe('sessions beside a model', () => {
  for (let seed = 1; seed <= 12; seed++) {
    it(`sound clients, seed ${seed}`, async () => {
      assert.ok((await runSound(seed)) > 300);
    });
  }

  it('hostile clients, seeds 1 to 60', async () => {
    for (let seed = 1; seed <= 60; seed++) await runHostile(seed);
  });
});
