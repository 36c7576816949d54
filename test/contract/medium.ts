/**
 * What every medium of a store does: the seam that src/store/medium.ts describes. Run on both by
 * medium.test.ts. The host here keeps no trees but the medium's own metafiles.
 */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { crc32 } from '../../src/base/checksum.js';
import { BLOCK_BYTES, SEGMENT_BLOCKS } from '../../src/base/units.js';
import { silentLog } from '../../src/env/log-sink.js';
import { METAFILES } from '../../src/layout/fsinfo.js';
import type { LogEntry } from '../../src/layout/log-entry.js';
import type { TagKind } from '../../src/layout/log-record.js';
import { BlockLoader } from '../../src/store/block-loader.js';
import { BufferPool } from '../../src/store/buffer-pool.js';
import { BufferTrees } from '../../src/store/buffer-tree.js';
import { Generation } from '../../src/store/generation.js';
import type { Medium, RecoveredBatch } from '../../src/store/medium.js';
import { MetafileEditor, rootOf } from '../../src/store/metafile.js';
import { type Tree, TreeTable } from '../../src/store/tree.js';
import { VbnSet } from '../../src/store/vbn-set.js';
import { pattern, same } from '../support/stores.js';

export interface MediumFixture {
  /** A medium with an empty store, opened. */
  readonly medium: Medium;
  /** The same, opened from what a crash now would leave. */
  crashed(): Promise<Medium>;
}

/** The part of an engine that a medium cannot do without. */
class Host {
  readonly medium: Medium;
  generation: Generation;
  readonly #files: readonly Tree[];

  constructor(medium: Medium) {
    const pool = new BufferPool(1024);
    const table = new TreeTable();
    const trees = new BufferTrees(pool, table);
    this.medium = medium;
    this.generation = new Generation(medium.fsinfo.cpNumber + 1);
    this.#files = METAFILES.map((name) => {
      const root = medium.fsinfo.roots[name];
      const tree = table.add(0, -1, 0);
      tree.height = root.height;
      tree.root.set(root.words);
      return tree;
    });
    medium.attach({
      editor: new MetafileEditor(trees, new BlockLoader(pool, medium, silentLog)),
      usage: this.#file('usage'),
      map: this.#file('map'),
      promised: () => ({ dataBlocks: 0, metaBlocks: 0 }),
      currentCp: () => this.generation.number,
      fail: (error) => {
        throw error;
      },
    });
  }

  #file(name: (typeof METAFILES)[number]): Tree {
    const tree = this.#files[METAFILES.indexOf(name)];
    assert.ok(tree !== undefined);
    return tree;
  }

  /** Places blocks and waits until they are written. They belong to nobody yet. */
  async place(kind: TagKind, blocks: readonly Uint8Array[]): Promise<readonly number[]> {
    const { medium } = this;
    while (!medium.isReady(kind, blocks.length)) await medium.prepare(kind, blocks.length);
    const tags = blocks.map((block, fbn) => ({
      treeId: 9,
      fbn,
      level: 0,
      crc: crc32(block),
      kind,
    }));
    const { vbns, written } = medium.place(kind, blocks, tags);
    await written;
    return vbns;
  }

  async placeAndAdopt(kind: TagKind, blocks: readonly Uint8Array[]): Promise<readonly number[]> {
    const vbns = await this.place(kind, blocks);
    for (const vbn of vbns) this.medium.adopt(vbn, kind, this.generation);
    return vbns;
  }

  /** A consistency point of the generation, without the release of what it freed. */
  async commit(freedData: readonly number[] = [], clean = false): Promise<void> {
    this.medium.freezeLog(this.generation.number);
    await this.commitFrozen(freedData, clean);
  }

  /** The same, when the log was marked already. */
  async commitFrozen(freedData: readonly number[] = [], clean = false): Promise<void> {
    const { generation, medium } = this;
    this.generation = new Generation(generation.number + 1);
    const freed = new VbnSet();
    for (const vbn of freedData) freed.add(vbn);
    await medium.commit({
      generation,
      clean,
      roots: {
        tree: rootOf(this.#file('tree')),
        vdisk: rootOf(this.#file('vdisk')),
        reference: rootOf(this.#file('reference')),
      },
      freedData: freed,
      nextTreeId: 77,
      nextVdiskId: 78,
      incompatible: 0,
    });
  }

  async log(cpNumber: number, units: LogEntry[][], payload: Uint8Array[] = []): Promise<string> {
    return this.medium.appendLog([{ cpNumber, units, payload }]);
  }
}

const block = (seed: number): Uint8Array => pattern(BLOCK_BYTES, seed);
const blocksOf = (count: number, seed: number): Uint8Array[] =>
  Array.from({ length: count }, (_, index) => block(seed * 10_000 + index));

const cut = (fbn: number): LogEntry => ({ kind: 'range', treeId: 5, fbn, blocks: 1, to: 'zero' });

async function recovered(medium: Medium): Promise<RecoveredBatch[]> {
  const batches: RecoveredBatch[] = [];
  for await (const batch of medium.recover('apply')) {
    if (batch.cpNumber > medium.fsinfo.cpNumber) batches.push(batch);
  }
  return batches;
}

function fbnsOf(batches: readonly RecoveredBatch[]): number[] {
  return batches.flatMap(({ entries }) =>
    entries.flatMap((entry) => (entry.kind === 'range' ? [entry.fbn] : [])),
  );
}

export function mediumContract(name: string, make: () => Promise<MediumFixture>): void {
  describe(`medium contract: ${name}`, () => {
    let fixture: MediumFixture;
    let host: Host;
    let medium: Medium;
    const readBack = async (from: Medium, vbns: readonly number[], wanted: Uint8Array[]) => {
      const into = new Uint8Array(BLOCK_BYTES);
      for (const [index, vbn] of vbns.entries()) {
        await from.readBlocks(vbn, [into]);
        same(into, wanted[index] as Uint8Array, `VBN ${vbn}`);
      }
    };
    beforeEach(async () => {
      fixture = await make();
      medium = fixture.medium;
      host = new Host(medium);
    });

    test('place: VBNs of their own, never hole or zero, read as soon as written', async () => {
      const seen = new Set<number>();
      for (const [round, count] of [1, 7, 256, 900, 300].entries()) {
        for (const kind of ['data', 'meta'] as const) {
          const blocks = blocksOf(count, round + 1);
          const vbns = await host.placeAndAdopt(kind, blocks);
          assert.equal(vbns.length, count);
          for (const vbn of vbns) {
            assert.ok(Number.isSafeInteger(vbn) && vbn > 1 && vbn < medium.vbnEnd, `VBN ${vbn}`);
            assert.ok(!seen.has(vbn), `VBN ${vbn} twice`);
            seen.add(vbn);
          }
          await readBack(medium, vbns, blocks);
        }
      }
    });

    test('place: data and metadata never share a segment or record', async () => {
      const segments = { data: new Set<number>(), meta: new Set<number>() };
      for (let round = 0; round < 20; round++) {
        for (const kind of ['data', 'meta'] as const) {
          for (const vbn of await host.placeAndAdopt(kind, blocksOf(30, round))) {
            segments[kind].add(Math.floor(vbn / SEGMENT_BLOCKS));
          }
        }
      }
      for (const segment of segments.data) assert.ok(!segments.meta.has(segment), `${segment}`);
    });

    test('read: runs of adjacent VBNs in one call', async () => {
      const blocks = blocksOf(64, 3);
      const vbns = await host.placeAndAdopt('data', blocks);
      const first = vbns[0] as number;
      assert.deepEqual(
        vbns,
        vbns.map((_, index) => first + index),
        'placed in order',
      );
      const into = blocks.map(() => new Uint8Array(BLOCK_BYTES));
      await medium.readBlocks(first, into);
      for (const [index, bytes] of into.entries()) {
        same(bytes, blocks[index] as Uint8Array, `block ${index}`);
      }
    });

    test('commit: what it adopted is there after a crash, with ids and number', async () => {
      const blocks = blocksOf(300, 4);
      const vbns = await host.placeAndAdopt('data', blocks);
      const number = host.generation.number;
      await host.commit([], true);
      const again = await fixture.crashed();
      const { fsinfo } = again;
      assert.deepEqual(
        [fsinfo.cpNumber, fsinfo.clean, fsinfo.nextTreeId, fsinfo.nextVdiskId],
        [number, true, 77, 78],
      );
      await readBack(again, vbns, blocks);
      const other = new Host(again);
      const used = new Set(vbns);
      for (let round = 0; round < 12; round++) {
        for (const vbn of await other.placeAndAdopt('data', blocksOf(256, round))) {
          assert.ok(!used.has(vbn), `VBN ${vbn} is in use`);
        }
      }
    });

    test('what was placed and not committed is forgotten by a crash', async () => {
      await host.placeAndAdopt('data', blocksOf(10, 1));
      await host.commit();
      medium.releaseFreed();
      const { freeDataBlocks, usedBlocks } = medium.space;
      await host.placeAndAdopt('data', blocksOf(200, 2));
      assert.equal(medium.space.freeDataBlocks, freeDataBlocks - 200);
      const again = await fixture.crashed();
      new Host(again);
      assert.equal(again.space.usedBlocks, medium.fsinfo.usedBlocks);
      assert.equal(again.fsinfo.usedBlocks, usedBlocks);
      assert.ok(again.space.freeDataBlocks >= freeDataBlocks - 64);
    });

    test('abandon: nobody names the VBN, its space is back', async () => {
      const before = medium.space.freeDataBlocks;
      const vbns = await host.place('data', blocksOf(100, 1));
      assert.ok(medium.space.freeDataBlocks <= before - 100);
      for (const vbn of vbns) medium.abandon(vbn, 'data');
      assert.ok(medium.space.freeDataBlocks >= before - 1);
      await host.commit();
      medium.releaseFreed();
      assert.ok(medium.space.freeDataBlocks >= before - 64);
    });

    test('reuse: a freed VBN is given out after its commit and its release, not before', async () => {
      const blocks = blocksOf(256, 1);
      const freed = await host.placeAndAdopt('data', blocks);
      await host.commit();
      medium.releaseFreed();
      const before = medium.space.freeDataBlocks;
      // Everything that can be placed now, in the generation that frees them and in the next.
      const take = async (countMax: number): Promise<number[]> => {
        const taken: number[] = [];
        while (
          taken.length < countMax &&
          medium.hasRoom({ dataBlocks: 256, metaBlocks: 0 }, 'client')
        ) {
          taken.push(...(await host.place('data', blocksOf(256, 2))));
        }
        return taken;
      };
      const isFreed = new Set(freed);
      const giveBack = (vbns: readonly number[]): void => {
        for (const vbn of vbns) medium.abandon(vbn, 'data');
      };
      const early = await take(100_000);
      assert.ok(early.length > 8000, 'the store was filled');
      assert.ok(!early.some((vbn) => isFreed.has(vbn)), 'before the commit');
      giveBack(early);
      await host.commit(freed);
      // A read that began before the commit still finds what it looks for.
      const late = await take(100_000);
      assert.ok(!late.some((vbn) => isFreed.has(vbn)), 'before the release');
      await readBack(medium, freed, blocks);
      giveBack(late);
      medium.releaseFreed();
      assert.ok(medium.space.freeDataBlocks >= before + 256 - 64, 'the space is back');
      const after = await take(100_000);
      const reused = after.filter((vbn) => isFreed.has(vbn)).length;
      if (medium.kind === 'in-place') assert.equal(reused, 256);
      else assert.equal(reused, 0, 'a VBN never comes back');
    });

    test('log: batches come back in order, wholly, with their payload', async () => {
      const number = host.generation.number;
      const wanted: number[] = [];
      for (let round = 0; round < 40; round++) {
        const units = Array.from({ length: 1 + (round % 5) }, (_, unit) => {
          return Array.from({ length: 1 + (unit % 3) }, (_, index) => {
            const fbn = round * 100 + unit * 10 + index;
            wanted.push(fbn);
            return cut(fbn);
          });
        });
        assert.equal(await host.log(number, units), 'durable');
        if (round % 10 !== 0) continue;
        const again = await fixture.crashed();
        assert.deepEqual(fbnsOf(await recovered(again)), wanted, `after round ${round}`);
      }
      // Found again as often as one looks.
      const again = await fixture.crashed();
      assert.deepEqual(fbnsOf(await recovered(again)), wanted);
      assert.deepEqual(fbnsOf(await recovered(again)), wanted);
    });

    test('log: data by content where the medium logs it, by pointer everywhere', async () => {
      const number = host.generation.number;
      const blocks = blocksOf(3, 6);
      const vbns = await host.placeAndAdopt('data', blocks);
      const crcs = Uint32Array.from(blocks.map((bytes) => crc32(bytes)));
      const pointers: LogEntry = {
        kind: 'pointers',
        treeId: 5,
        fbn: 8,
        vbn: vbns[0] as number,
        crcs,
      };
      const units: LogEntry[][] = [[pointers]];
      if (medium.logsData) {
        const crc = crc32(blocks[1] as Uint8Array);
        units.push([{ kind: 'data', treeId: 5, fbn: 2, crc, payloadIndex: 0 }]);
      }
      assert.equal(
        await host.log(number, units, medium.logsData ? [block(60_001)] : []),
        'durable',
      );
      const again = await fixture.crashed();
      const [batch] = await recovered(again);
      const found = batch?.entries.flatMap((entry) => (entry.kind === 'data' ? [entry] : []));
      if (found !== undefined && found.length > 1) {
        // A local log: nobody else has what the pointers name.
        assert.deepEqual(
          [...crcs],
          found.slice(0, 3).map(({ crc }) => crc),
        );
        for (const { crc, payloadIndex } of found) {
          assert.equal(crc32(batch?.payload(payloadIndex) ?? block(0)), crc);
        }
        return;
      }
      assert.deepEqual(batch?.entries[0], pointers);
      await readBack(again, vbns, blocks);
      if (medium.logsData) same(batch?.payload(0) ?? block(0), block(60_001), 'payload');
      // In recovery the VBNs are in use before anything else is placed.
      const other = new Host(again);
      await again.reclaim(vbns, other.generation);
      for (const vbn of vbns) again.claim(vbn, other.generation);
      const more = await other.placeAndAdopt('data', blocksOf(900, 7));
      assert.ok(!more.some((vbn) => vbns.includes(vbn)), 'a logged VBN is not given out');
      await readBack(again, vbns, blocks);
      await other.commit();
    });

    test('log: a commit empties it up to the freeze, and no further', async () => {
      const number = host.generation.number;
      await host.log(number, [[cut(1)]]);
      medium.freezeLog(number);
      await host.log(number + 1, [[cut(2)]]);
      await host.log(number, [[cut(3)]]);
      await host.log(number + 1, [[cut(4)]]);
      assert.deepEqual(fbnsOf(await recovered(await fixture.crashed())), [1, 2, 3, 4]);
      await host.commitFrozen();
      assert.deepEqual(fbnsOf(await recovered(await fixture.crashed())), [2, 4]);
    });

    test('log: what does not fit is refused, and fits after a commit', async () => {
      let answer = 'durable';
      const payload = medium.logsData ? blocksOf(200, 8) : [];
      for (let round = 0; round < 12 && answer === 'durable'; round++) {
        const unit = payload.map((bytes, index): LogEntry => {
          return { kind: 'data', treeId: 5, fbn: index, crc: crc32(bytes), payloadIndex: index };
        });
        answer = await host.log(host.generation.number, [[...unit, cut(round)]], payload);
      }
      if (medium.logsData) {
        assert.equal(answer, 'full');
        assert.equal(medium.logIsHalfFull, true);
      }
      await host.commit();
      await host.commit();
      assert.equal(medium.logIsHalfFull, false);
      assert.equal(await host.log(host.generation.number, [[cut(99)]]), 'durable');
      assert.deepEqual(fbnsOf(await recovered(await fixture.crashed())), [99]);
    });

    test('room: what one finds, everybody who gives more back finds too', () => {
      const { totalBlocks } = medium.space;
      const found = { client: 0, overwrite: 0, trim: 0, merge: 0, release: 0 };
      for (const urgency of ['client', 'overwrite', 'trim', 'merge', 'release'] as const) {
        for (let blocks = 0; blocks <= totalBlocks + 4096; blocks += 32) {
          if (medium.hasRoom({ dataBlocks: blocks, metaBlocks: 32 }, urgency))
            found[urgency] = blocks;
          else break;
        }
      }
      assert.ok(found.client > 0 && found.client <= found.overwrite);
      assert.ok(found.overwrite <= found.trim && found.trim <= found.merge);
      assert.ok(found.merge <= found.release && found.release < totalBlocks);
    });

    test('second copies: of metadata, where the medium keeps them', async () => {
      const blocks = blocksOf(2, 9);
      const [vbn = 0] = await host.placeAndAdopt('meta', blocks);
      const into = new Uint8Array(BLOCK_BYTES);
      if (!(await medium.readSecondCopy(vbn, into))) {
        await assert.rejects(medium.heal(vbn, block(1), 'first'));
        return;
      }
      same(into, blocks[0] as Uint8Array, 'the second copy');
      await medium.heal(vbn, block(1), 'first');
      await medium.readSecondCopy(vbn, into);
      same(into, blocks[0] as Uint8Array, 'the second copy stays');
      await medium.heal(vbn, blocks[0] as Uint8Array, 'first');
      await readBack(medium, [vbn], blocks);
    });

    test('many commits in a row leave no block behind', async () => {
      let previous: readonly number[] = [];
      const used: number[] = [];
      for (let round = 0; round < 30; round++) {
        const vbns = await host.placeAndAdopt('data', blocksOf(100, round));
        await host.commit(previous);
        medium.releaseFreed();
        previous = vbns;
        used.push(medium.space.usedBlocks);
      }
      const spread = Math.max(...used.slice(5)) - Math.min(...used.slice(5));
      assert.ok(spread < 16, `${used.join()}`);
      const again = await fixture.crashed();
      assert.equal(again.fsinfo.usedBlocks, medium.fsinfo.usedBlocks);
    });
  });
}
