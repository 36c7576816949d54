/** Deliberate bugs of stores on an object store: take-overs, what changes on its way, the cache. */
import {
  CLAIMANT,
  type DeliberateBug,
  LOADER,
  OBJECT_LOG,
  ON_THE_WAY,
  RENEWAL,
  TAKE_OVER,
  test,
} from './bug.js';

export const OBJECT_LOG_BUGS: readonly DeliberateBug[] = [
  {
    name: 'answers-before-silence',
    what: 'object log: a new owner answers while answers of the one it deposed may be due',
    patches: [
      {
        file: CLAIMANT,
        find: 'const waitMs = isFree ? 0 : 2 * dueMs;',
        replace: 'const waitMs = isFree ? 0 : 0 * dueMs;',
      },
    ],
    caughtBy: [
      test(
        'src/main/take-over.test.ts',
        'an owner that is silent is deposed; one that was killed here at once',
      ),
    ],
  },
  {
    name: 'void-check-by-content',
    what: 'object log: the void check believes the number that an index object holds',
    patches: [
      {
        file: TAKE_OVER,
        find: 'indexed.cpNumber > end.cp.fsinfo.cpNumber;',
        replace: 'indexed.record > end.cp.record;',
      },
    ],
    caughtBy: [
      test(ON_THE_WAY, 'the void check does not believe a number that an index object holds'),
    ],
  },
  {
    name: 'exists-is-theirs',
    what: 'object log: a server that is told that its record exists takes it for another one',
    patches: [
      {
        file: 'src/store/object-log/record-chain.ts',
        find: "if ((await this.#whoseIs(key, head)) === 'ours') return;",
        replace: '',
      },
    ],
    caughtBy: [
      test(ON_THE_WAY, 'a put that arrives twice, and is told that it exists, is no other server'),
    ],
  },
  {
    name: 'damage-before-look',
    what: 'object log: a deposed server calls damaged what its successor has deleted',
    patches: [
      {
        file: OBJECT_LOG,
        find: '.finally(() => this.#ownership?.lookAfresh());',
        replace: ';',
      },
    ],
    caughtBy: [
      test(
        'src/main/take-over.test.ts',
        'a deposed server that meets other bytes where a record was is fenced',
      ),
    ],
  },
  {
    name: 'read-once',
    what: 'object log: a block that changed on its way is called damaged without another reading',
    patches: [
      {
        file: LOADER,
        find: 'reading < READINGS_MORE; reading++',
        replace: 'reading < READINGS_MORE - 2; reading++',
      },
    ],
    caughtBy: [
      test(ON_THE_WAY, 'every second GET changes a bit: data and metadata are what was written'),
    ],
  },
  {
    name: 'slot-not-verified',
    what: 'object log: a block of the cache file is served without its checksum being compared',
    patches: [
      {
        file: 'src/store/object-log/cache/cache-file.ts',
        find: 'if (crc32(into) === crc) return true;',
        replace: 'if (crc32(into) !== undefined) return true;',
      },
    ],
    caughtBy: [
      test(
        'src/store/object-log/cache/cache.test.ts',
        'every flipped bit of a head or a block drops what it hit, and serves nothing',
      ),
    ],
  },
  {
    name: 'move-without-names',
    what: 'object log: the cleaner moves a shared block, and the new one is not counted as shared',
    patches: [
      {
        file: RENEWAL,
        find: 'generation.share({ vbn, blocks: 1, ...ids });',
        replace: 'void ids;',
      },
    ],
    caughtBy: [
      test(
        'src/main/cleaner.test.ts',
        'blocks that several trees name one by one move together, and stay shared',
      ),
    ],
  },
];
