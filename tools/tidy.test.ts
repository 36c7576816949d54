import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FILE_LINES_MAX } from './tidy/shape.js';
import { describeFault, readProject, tidy } from './tidy.js';

const OPENING = '/** Owns the sample. */\n';

/** Names of the rules that object to this text in this place. */
function rulesAgainst(path: string, text: string, others: readonly string[] = []): string[] {
  const files = [{ path, text }, ...others.map((other) => ({ path: other, text: '' }))];
  const faults = tidy(files).filter((fault) => fault.path === path);
  return [...new Set(faults.map((fault) => fault.rule))];
}

interface Sample {
  readonly rule: string;
  readonly path: string;
  readonly bad: readonly string[];
  readonly good: readonly string[];
}

const SAMPLES: readonly Sample[] = [
  {
    rule: 'layers',
    path: 'src/store/sample.ts',
    bad: [
      "import { split } from '../split/split.js';",
      "import type { Split } from '../split/split.js';",
      "export const later = () => import('../vdisk/vdisk.js');",
      "type Later = import('../vdisk/vdisk.js').Vdisk;",
      "export { split } from '../split/split.js';",
      "import '../../sim/world.js';",
      "import { bench } from '../../bench/bench.js';",
      "import { one } from '../../test/one.js';",
      "import { tidy } from '../../tools/tidy.js';",
      "import { lost } from '../lost/lost.js';",
    ],
    good: [
      "import { invariant } from '../base/invariant.js';",
      "import type { Device } from '../env/device.js';",
      "import { medium } from './in-place/medium.js';",
      "// import { split } from '../split/split.js';",
    ],
  },
  {
    rule: 'layers',
    path: 'src/store/in-place/sample.ts',
    bad: ["import { record } from '../object-log/record.js';"],
    good: ["import { buffer } from '../buffer.js';", "import { map } from './map.js';"],
  },
  {
    rule: 'layers',
    path: 'src/target/nbd/sample.ts',
    bad: ["import { lun } from '../iscsi/lun.js';", "import { store } from '../../main/store.js';"],
    good: [
      "import { session } from './session.js';",
      "import { vdisk } from '../../vdisk/vdisk.js';",
    ],
  },
  {
    rule: 'layers',
    path: 'src/image/sample.ts',
    bad: [
      "import { wire } from '../target/nbd/wire.js';",
      "import { job } from '../control/job.js';",
    ],
    good: ["import type { BlockTarget } from '../vdisk/block-target.js';"],
  },
  {
    rule: 'layers',
    path: 'src/objects/sample.ts',
    bad: ["import { record } from '../layout/log-record.js';"],
    good: ["import type { ObjectStore } from '../env/object-store.js';"],
  },
  {
    rule: 'layers',
    path: 'src/store/sample.test.ts',
    bad: ["import { vdisk } from '../vdisk/vdisk.js';", "import { a } from '../../tools/a.js';"],
    good: [
      "import { flips } from '../../test/support/bit-flips.js';",
      "import { device } from '../../sim/world/simulated-device.js';",
    ],
  },
  {
    rule: 'layers',
    path: 'src/stray.ts',
    bad: ["import { invariant } from './base/invariant.js';"],
    good: [''],
  },
  {
    rule: 'packages',
    path: 'src/layout/sample.ts',
    bad: ["import { fc } from 'fast-check';"],
    good: ["import { crc32 } from 'node:zlib';"],
  },
  {
    rule: 'packages',
    path: 'src/objects/sample.ts',
    bad: ["import { S3Client } from '@aws-sdk/client-s3';"],
    good: ["import { SignatureV4 } from '@smithy/signature-v4';"],
  },
  {
    rule: 'packages',
    path: 'src/layout/sample.test.ts',
    bad: [],
    good: ["import { fc } from 'fast-check';"],
  },
  {
    rule: 'import-ending',
    path: 'sim/sample.ts',
    bad: ["import { one } from './one';", "import { one } from './one.ts';"],
    good: ["import { one } from './one.js';", "import { two } from 'two';"],
  },
  {
    rule: 'barrels',
    path: 'src/store/sample.ts',
    bad: ["export * from './buffer.js';", "export { buffer } from './buffer.js';"],
    good: ['export const buffer = 1;', 'const buffer = 1;\nexport { buffer };'],
  },
  {
    rule: 'barrels',
    path: 'src/main/library.ts',
    bad: [],
    good: ["export { openStore } from './store.js';"],
  },
  {
    rule: 'calls',
    path: 'src/store/sample.ts',
    bad: [
      'const now = Date.now();',
      'const now = new Date();',
      'const now = performance.now();',
      'setTimeout(() => undefined, 1);',
      'const later = setInterval;',
      'setImmediate(() => undefined);',
      'const chance = Math.random();',
      'const debug = process.env.DEBUG;',
      "console.log('here');",
      'globalThis.setTimeout(() => undefined, 1);',
      "import { randomBytes } from 'node:crypto';",
      'const id = crypto.randomUUID();',
      'const options = { clock: Date };',
    ],
    good: [
      'this.process(1);',
      'const steps = { process: 1, Date: 2 };',
      '// Date.now() would not do here',
      "const name = 'process';",
      'clock.setTimer(1, () => undefined);',
      'const some = Math.max(1, 2);',
      'const chance = random.chance(0.5);',
      'class Steps { process(): void {} }',
    ],
  },
  {
    rule: 'calls',
    path: 'src/env/sample.ts',
    bad: [],
    good: ['const now = Date.now();', 'process.exitCode = 1;'],
  },
  {
    rule: 'calls',
    path: 'src/store/sample.fuzz.ts',
    bad: ['const seed = Date.now();', 'const seed = Math.random();'],
    good: ['const seed = process.env.SEED;'],
  },
  {
    rule: 'modules',
    path: 'src/vdisk/sample.ts',
    bad: [
      "import { openSync } from 'node:fs';",
      "import { open } from 'node:fs/promises';",
      "import { spawn } from 'node:child_process';",
      "import { setTimeout as sleep } from 'node:timers/promises';",
      "import { createServer } from 'node:net';",
    ],
    good: ["import { crc32 } from 'node:zlib';"],
  },
  {
    rule: 'modules',
    path: 'src/target/nbd/sample.ts',
    bad: ["import { rmSync } from 'node:fs';"],
    good: ["import { createServer } from 'node:net';"],
  },
  {
    rule: 'modules',
    path: 'src/target/nbd/sample.test.ts',
    bad: ["import { setTimeout as sleep } from 'node:timers/promises';"],
    good: ["import { mkdtempSync } from 'node:fs';"],
  },
  {
    rule: 'null',
    path: 'src/store/sample.ts',
    bad: ['const none = null;', 'let some: string | null;', 'open(null);'],
    good: [
      'if (address === null) stop();',
      'if (address !== null) go();',
      '// null',
      "const a = 'null';",
    ],
  },
  {
    rule: 'words',
    path: 'src/store/sample.ts',
    bad: [
      '// the volume is full',
      'let checkpointCount = 0;',
      'const FLATTEN_ALL = 1;',
      'function writeSuperBlock(): void {}',
      'const message = `journaling stopped`;',
      '// a null-block',
      'const parentTree = 1;',
      'const children = [];',
      'class TreeNode {}',
      '// reads a page from disk',
    ],
    good: [
      "import { crc32 } from 'node:zlib';",
      '// Node has no lock, so a child process holds it',
      '// the page cache of Linux',
      'const stage = 1;',
      'const homepage = 1;',
    ],
  },
  {
    rule: 'words',
    path: 'src/image/sample.ts',
    bad: ['// the page of a disk', 'const clusterVolume = 1;'],
    good: ['const clusterBytes = 65536;'],
  },
  {
    rule: 'words',
    path: 'docs/DESIGN.md',
    bad: ['A checkpoint follows.'],
    good: ['The web page of this Node.js project, its parent folder.'],
  },
  { rule: 'words', path: 'docs/GLOSSARY.md', bad: [], good: ['Not: volume, checkpoint.'] },
  {
    rule: 'file-lines',
    path: 'sim/sample.ts',
    bad: ['const x = 1;\n'.repeat(FILE_LINES_MAX + 1)],
    good: ['const x = 1;\n'.repeat(FILE_LINES_MAX)],
  },
  {
    rule: 'line-columns',
    path: 'sim/sample.ts',
    bad: [`// ${'x'.repeat(98)}`],
    good: [
      `// ${'x'.repeat(97)}`,
      `// \u00a7 ${'\u00a7'.repeat(95)}`,
      `// https://${'x'.repeat(99)}`,
    ],
  },
  { rule: 'file-names', path: 'sim/writeCache.ts', bad: [''], good: [] },
  { rule: 'file-names', path: 'sim/write_cache.test.ts', bad: [''], good: [] },
  { rule: 'file-names', path: 'sim/utils.ts', bad: [''], good: [] },
  { rule: 'file-names', path: 'sim/write-cache.fuzz.ts', bad: [], good: [''] },
  {
    rule: 'marks',
    path: 'docs/NOTES.md',
    bad: [`${'TO'}DO: finish`, `// ${'FIX'}ME`, `${'XX'}X look again`],
    good: ['mktemp /tmp/XXXXXX'],
  },
  {
    rule: 'switched-off',
    path: 'src/store/sample.test.ts',
    bad: [
      `test.${'only'}('a', () => undefined);`,
      `describe.${'skip'}('a', () => undefined);`,
      `it.${'todo'}('a');`,
      `t.${'skip'}('no fio');`,
      `test('a', { ${'skip'}: true }, () => undefined);`,
      `test('a', { ${'skip'}: 'no fio' }, () => undefined);`,
    ],
    good: ["test('a', () => undefined);", 'reader.skip(4);'],
  },
  {
    rule: 'machine-paths',
    path: 'tools/sample.sh',
    bad: [`cd /${'work'}/main`, `ls "/${'root'}"`, `cat /${'home'}/me/x`, `cat ${'..'}/shared/x`],
    good: [
      'ls fsinfo/root',
      `cd "$HOME/${'work'}/x"`,
      'see /workshop',
      'cp ../shared-state x',
      'cp a/../shared x',
    ],
  },
  {
    rule: 'registry-hosts',
    path: 'package-lock.json',
    bad: [`"${'resolved'}": "x"`, `https://${'registry'}.example.org/x`],
    good: ['"url": "https://opencollective.com/x"'],
  },
];

describe('each rule refuses its bad samples and passes its good ones', () => {
  for (const { rule, path, bad, good } of SAMPLES) {
    test(`${rule}: ${path}`, () => {
      for (const text of bad) {
        assert.ok(
          rulesAgainst(path, text).includes(rule),
          `should be refused: ${text.slice(0, 90)}`,
        );
      }
      for (const text of good) {
        assert.ok(!rulesAgainst(path, text).includes(rule), `should pass: ${text.slice(0, 90)}`);
      }
    });
  }
});

test('opening: a file of src says first what it owns', () => {
  assert.deepEqual(rulesAgainst('src/base/sample.ts', 'export const x = 1;\n'), ['opening']);
  assert.deepEqual(rulesAgainst('src/base/sample.ts', `${OPENING}export const x = 1;\n`), []);
  assert.deepEqual(rulesAgainst('src/base/sample.test.ts', 'export const x = 1;\n'), []);
});

test('readmes: each folder of src has a short one', () => {
  const code = { path: 'src/target/nbd/sample.ts', text: OPENING };
  const missing = tidy([code]).map((fault) => `${fault.rule} ${fault.path}`);
  assert.deepEqual(missing, ['readmes src/target/README.md', 'readmes src/target/nbd/README.md']);
  const upper = { path: 'src/target/README.md', text: 'Owns\n'.repeat(15) };
  const short = { path: 'src/target/nbd/README.md', text: 'Owns\n'.repeat(15) };
  const long = { path: 'src/target/nbd/README.md', text: 'Owns\n'.repeat(16) };
  assert.deepEqual(tidy([code, upper, short]), []);
  assert.deepEqual(
    tidy([code, upper, long]).map((fault) => fault.rule),
    ['readmes'],
  );
});

test('links: a relative link leads to something', () => {
  const text = '[a](FORMAT.md#roots) [b](../README.md) [c](decisions/) [d](https://example.org)';
  const there = ['docs/FORMAT.md', 'README.md', 'docs/decisions/0001-x.md'];
  assert.deepEqual(rulesAgainst('docs/DESIGN.md', text, there), []);
  assert.deepEqual(rulesAgainst('docs/DESIGN.md', '[a](LOST.md)', there), ['links']);
});

test('a fault names file, line and rule', () => {
  const text = `${OPENING}import { x } from './x';\n`;
  const [fault] = tidy([{ path: 'sim/sample.ts', text }]);
  assert.ok(fault !== undefined);
  assert.equal(describeFault(fault), "sim/sample.ts:2  write './x.js', not './x'  [import-ending]");
});

test('this project is tidy', () => {
  assert.deepEqual(tidy(readProject('.')).map(describeFault), []);
});
