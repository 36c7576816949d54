/**
 * The deliberate bugs, each with what catches it. Every patch is one edit: `find` stands in its
 * file exactly once (bugs.test.ts looks), `replace` takes its place.
 */
import {
  ACTS,
  CERTIFY,
  type DeliberateBug,
  ENGINE,
  FIFTEEN,
  FILL,
  IN_PLACE,
  LOADER,
  NOTICED,
  OBJECT_LOG,
  READS_WRONG,
  RECOVERY,
  rot,
  SPLIT_JOBS,
  seeds,
  servers,
  TAKE_OVER,
  test,
  WHOLES,
  WRITER,
} from './bug.js';
import { OBJECT_LOG_BUGS } from './object-log-bugs.js';

export const BUGS: readonly DeliberateBug[] = [
  {
    name: 'reuse-before-cp',
    what: 'in place: blocks are used again while the consistency point that freed them is written',
    patches: [
      { file: IN_PLACE, find: 'this.#unreleased.addAll(freed);', replace: '' },
      {
        file: IN_PLACE,
        find: 'const outcome = await writer.write();',
        replace: `const outcome = await writer.write();
    this.#committing = undefined;
    this.#unreleased.addAll(freed);
    this.releaseFreed();`,
      },
    ],
    caughtBy: [
      test(
        'test/contract/medium.test.ts',
        'reuse: a freed VBN is given out after its commit and its release, not before',
      ),
    ],
  },
  {
    name: 'delete-before-cp',
    what: 'object log: dead records are deleted before the consistency point that freed them',
    patches: [
      {
        file: OBJECT_LOG,
        find: 'const dead = await this.#findDead(generation, replayFrom);',
        replace: `const dead = await this.#findDead(generation, replayFrom);
    void this.#objects.delete(dead.map((record) => recordKey(this.#prefix, record)));`,
      },
    ],
    caughtBy: [
      test(
        'src/store/object-log/object-log.test.ts',
        'power cut at every put, and in the recovery: what was flushed is there',
      ),
      seeds('object-log', NOTICED),
    ],
  },
  {
    name: 'fill-without-second-look',
    what: 'a split puts its pointer without asking again whether the field still is a hole',
    patches: [
      {
        file: FILL,
        find: 'if (!isInside || !isHoleField(words, at)) {',
        replace: 'if (!isInside) {',
      },
    ],
    caughtBy: [
      test(FIFTEEN, '1. a write after the scan saw its hole: the fill must not land'),
      seeds('in-place', NOTICED),
      seeds('object-log', NOTICED),
    ],
  },
  {
    name: 'trim-writes-hole',
    what: 'TRIM leaves VBN 0 in a vdisk that reads through: the backing data comes back',
    patches: [
      {
        file: WRITER,
        find: "const kind = tree.needsZeros ? 'zero' : 'hole';",
        replace: "const kind = 'hole';",
      },
    ],
    caughtBy: [
      test(FIFTEEN, '3. TRIM in a clone, then split: zeros stay zeros, nothing is inflated'),
      seeds('in-place', READS_WRONG),
      seeds('object-log', READS_WRONG),
    ],
  },
  {
    name: 'release-before-last-fill',
    what: 'a split lets go of the backing store before its last fills are durable',
    patches: [
      {
        file: SPLIT_JOBS,
        find: `    // Every fill must be durable before the association can be gone.
    await engine.consistencyPoint();
`,
        replace: '',
      },
      {
        // The certificate's walk begins with one, too.
        file: CERTIFY,
        find: `    await engine.consistencyPoint();
`,
        replace: '',
      },
    ],
    caughtBy: [seeds('in-place', READS_WRONG), seeds('object-log', READS_WRONG)],
  },
  {
    name: 'log-replayed-twice',
    what: 'recovery applies the whole log, and then the whole log again',
    patches: [
      {
        file: RECOVERY,
        find: 'return replay.finish();',
        replace: `for await (const batch of engine.medium.recover('apply')) {
    if (batch.cpNumber > durable) await replay.add(batch.entries, batch.payload);
  }
  return replay.finish();`,
      },
    ],
    caughtBy: [
      test(
        'src/vdisk/vdisk.test.ts',
        'what was flushed, or written with FUA, is there after a crash (object-log)',
      ),
      seeds('in-place', NOTICED),
      seeds('object-log', NOTICED),
    ],
  },
  {
    name: 'log-replayed-over-cp',
    what: 'recovery applies entries that the consistency point holds already',
    patches: [
      {
        file: RECOVERY,
        find: 'if (batch.cpNumber > durable) await replay.add(',
        replace: 'await replay.add(',
      },
    ],
    caughtBy: [seeds('in-place', NOTICED), seeds('object-log', NOTICED)],
  },
  {
    name: 'log-not-reclaimed',
    what: 'recovery gives out blocks that only the log names',
    patches: [
      {
        file: RECOVERY,
        find: 'await engine.medium.reclaim(vbns, engine.generation);',
        replace: '',
      },
    ],
    caughtBy: [seeds('in-place', NOTICED)],
  },
  {
    name: 'log-out-of-order',
    what: 'recovery applies the entries of a window from the last to the first',
    patches: [
      {
        file: RECOVERY,
        find: 'const window = this.#window;',
        replace: 'const window = this.#window.reverse();',
      },
    ],
    caughtBy: [
      test(
        'test/durability.test.ts',
        'what was flushed is there: writes, FUA with all before it, trims',
      ),
      seeds('in-place', NOTICED),
      seeds('object-log', NOTICED),
    ],
  },
  {
    name: 'map-bit-lost',
    what: 'one block in 32 that a consistency point placed is not marked as in use',
    patches: [
      {
        file: 'src/store/in-place/active-map.ts',
        find: 'const between = before | setNow;',
        replace: 'const between = before | (setNow & 0x7fff_ffff);',
      },
    ],
    caughtBy: [
      test('src/store/in-place/in-place-medium.fuzz.ts', 'seeds, on the smallest store'),
      seeds('in-place', /store check: map-missing/),
    ],
  },
  {
    name: 'live-count-lost',
    what: 'object log: a record counts one live block too few',
    patches: [
      {
        file: 'src/store/object-log/usage-writer.ts',
        find: 'const live = usageLive(words[at] as number) + delta;',
        replace:
          'const live = Math.max(0, usageLive(words[at] as number) + delta - (delta > 1 ? 1 : 0));',
      },
    ],
    caughtBy: [
      test(
        'src/store/object-log/object-log.test.ts',
        'power cut at every put, and in the recovery: what was flushed is there',
      ),
      seeds('object-log', /store check: usage/),
    ],
  },
  {
    name: 'root-before-blocks',
    what: 'in place: the root is written without a sync of the blocks it names',
    patches: [
      {
        file: IN_PLACE,
        find: `    await this.#device.sync();
    const mark`,
        replace: `    const mark`,
      },
    ],
    caughtBy: [
      test(FIFTEEN, '15. power fails at any write, and again during recovery'),
      seeds('in-place', NOTICED),
    ],
  },
  {
    name: 'index-before-record',
    what: 'object log: a CP record is named in the index before the chain is acknowledged',
    patches: [
      {
        file: 'src/store/object-log/cp-record.ts',
        find: 'await chain.acknowledged(record.number);',
        replace: '',
      },
    ],
    caughtBy: [
      test('sim/scripted.test.ts', 'object-log: a power cut in one call of'),
      seeds('object-log', NOTICED),
    ],
  },
  {
    name: 'checksum-not-verified',
    what: 'data is given to its reader unverified',
    patches: [
      {
        file: LOADER,
        find: 'crc32(block) === crc || (await this.#readAgain(vbn + index, block, crc))',
        replace: 'crc32(block) !== crc - 1',
      },
    ],
    caughtBy: [
      test(
        'test/durability.test.ts',
        'a rotten data block is corrupt, by name; writing it again mends it',
      ),
      rot('in-place', READS_WRONG),
      rot('object-log', READS_WRONG),
    ],
  },
  {
    name: 'metadata-not-verified',
    what: 'indirect blocks are used unverified',
    patches: [
      {
        file: LOADER,
        find: 'const found = crc32(bytes);',
        replace: 'const found = crc;',
      },
    ],
    caughtBy: [
      test('sim/bit-rot.test.ts', 'in-place, after a close'),
      rot('in-place', NOTICED),
      rot('object-log', NOTICED),
    ],
  },
  {
    name: 'count-off-by-one',
    what: 'the reference file counts one owner of a shared block too few',
    patches: [
      {
        file: 'src/store/reference-writer.ts',
        find: `words[at] = 1;
        toggleOwner(words, at, ownerId);
        fresh++;`,
        replace: `words[at] = 0;
        toggleOwner(words, at, ownerId);
        fresh++;`,
      },
    ],
    caughtBy: [
      test('src/store/reference-file.fuzz.ts', 'seeds'),
      seeds('in-place', NOTICED),
      seeds('object-log', NOTICED),
    ],
  },
  {
    name: 'shrink-forgets-limit',
    what: 'a shrink does not remember the smallest size: grown again, backing data comes back',
    patches: [
      {
        file: ACTS,
        find: 'tree.readThroughLimitBytes = Math.min(tree.readThroughLimitBytes, sizeBytes);',
        replace: '',
      },
    ],
    caughtBy: [
      test(FIFTEEN, '5. shrunk and grown again while associated: old data does not come back'),
      seeds('in-place', NOTICED),
      seeds('object-log', NOTICED),
    ],
  },
  {
    name: 'flush-before-durable',
    what: 'in place: a FLUSH writes its group, and leaves it volatile',
    patches: [
      {
        file: 'src/store/log-ring.ts',
        find: 'await this.#device.writeDurable(position',
        replace: 'await this.#device.write(position',
      },
    ],
    caughtBy: [
      test('sim/scripted.test.ts', 'in-place: a power cut in one call of'),
      seeds('in-place', NOTICED),
    ],
  },
  {
    name: 'pointers-before-data',
    what: 'in place: the log names placed blocks that no sync has made durable',
    patches: [
      {
        file: IN_PLACE,
        find: 'await this.#syncPlaced();',
        replace: '',
      },
    ],
    caughtBy: [
      test(
        'src/store/in-place/in-place-medium.test.ts',
        'a FLUSH waits for blocks that a consistency point is writing',
      ),
      seeds('in-place', NOTICED),
    ],
  },
  {
    name: 'act-not-logged',
    what: 'an administrative act is answered without the log',
    patches: [
      {
        file: ENGINE,
        find: 'await this.writer.flush([]);',
        replace: 'await Promise.resolve();',
      },
    ],
    caughtBy: [
      test('test/durability.test.ts', 'every act that was answered is there'),
      seeds('in-place', NOTICED),
      seeds('object-log', NOTICED),
    ],
  },
  {
    name: 'reuse-under-reader',
    what: 'freed blocks are used again while reads of them are under way',
    patches: [
      {
        file: ENGINE,
        find: `    await this.loader.drained();
    this.medium.releaseFreed();
`,
        replace: `    this.medium.releaseFreed();
`,
      },
    ],
    caughtBy: [
      test(
        'src/store/freed-under-reader.test.ts',
        'in-place: a consistency point that freed blocks waits for who reads them',
      ),
    ],
  },
  {
    name: 'goes-on-after-failed-sync',
    what: 'in place: a failed write or sync does not stop what runs beside it',
    patches: [
      {
        file: 'src/store/in-place/fail-stop-device.ts',
        find: 'if (this.#failure !== undefined) throw this.#failure;',
        replace: '',
      },
    ],
    caughtBy: [
      test(
        'src/store/in-place/fail-stop-device.test.ts',
        'a sync fails: a write beside it and one after it are refused',
      ),
      seeds('in-place', NOTICED),
    ],
  },
  {
    name: 'fill-is-a-change',
    what: 'a split fills without the flag: a diff reports what no client wrote',
    patches: [
      {
        file: FILL,
        find: 'putPointer(words, at, vbn, crc, FLAG_FILLED);',
        replace: 'putPointer(words, at, vbn, crc, 0);',
      },
    ],
    caughtBy: [
      test(FIFTEEN, '8. a fill is not a change: a diff across a split is empty'),
      seeds('in-place', /diff/),
      seeds('object-log', /diff/),
    ],
  },
  {
    name: 'merge-before-durable',
    what: 'a merge lets go of the deleted snapshot before what it moved is durable',
    patches: [
      {
        file: 'src/vdisk/merge-job.ts',
        find: `  await engine.consistencyPoint();
  // A split or a reader may have come`,
        replace: '  // A split or a reader may have come',
      },
    ],
    caughtBy: [seeds('in-place', NOTICED), seeds('object-log', NOTICED)],
  },
  {
    name: 'copy-without-names',
    what: 'a tree that copies a shared indirect block does not count what the copy names',
    patches: [
      {
        file: 'src/store/reference-writer.ts',
        find: 'if (!isLast) await this.lend(below, 0, treeId);',
        replace: 'if (!isLast) continue;',
      },
    ],
    caughtBy: [test(WHOLES, 'in-place: seeds'), test(WHOLES, 'object-log: seeds')],
  },
  {
    name: 'free-what-others-name',
    what: 'a dying tree frees what is beneath a shared block although another tree names it',
    patches: [
      {
        file: 'src/vdisk/free-job.ts',
        find: 'if (names > 1) return { level',
        replace: 'if (names > 2) return { level',
      },
    ],
    caughtBy: [test(WHOLES, 'in-place: seeds'), test(WHOLES, 'object-log: seeds')],
  },
  {
    name: 'no-void-check',
    what: 'object log: a SEAL in the place of a deleted record passes for one that ends the chain',
    patches: [{ file: TAKE_OVER, find: 'if (isVoid) return undefined;', replace: '' }],
    caughtBy: [
      test(
        'src/main/take-over.test.ts',
        'a SEAL in the place of a deleted record is void, and fences nobody',
      ),
      servers(NOTICED),
    ],
  },
  {
    name: 'seals-are-collected',
    what: 'object log: SEALs are deleted as dead records are',
    patches: [
      {
        file: OBJECT_LOG,
        find: "if (record.kind !== 'seal') this.#ledger.found(record);",
        replace: 'this.#ledger.found(record);',
      },
    ],
    caughtBy: [servers(NOTICED)],
  },
  {
    name: 'claim-without-seal',
    what: 'object log: a new owner claims its epoch, and ends nothing',
    patches: [
      {
        file: TAKE_OVER,
        find: 'const isPut = await putSeal(bid, state, end.number + ahead);',
        replace: 'const isPut = true;',
      },
    ],
    caughtBy: [servers(NOTICED)],
  },
  {
    name: 'reads-unbounded',
    what: 'object log: a server answers reads without asking whether it still is the owner',
    patches: [
      {
        file: OBJECT_LOG,
        find: 'return this.#ownership?.confirmed();',
        replace: 'return undefined;',
      },
    ],
    caughtBy: [servers(/^Violation: stale: /)],
  },
  ...OBJECT_LOG_BUGS,
];
