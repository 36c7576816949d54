/** The README's example: compiled under the project's own rules, and run as it stands there. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import ts from 'typescript';

const README = readFileSync('README.md', 'utf8');

function exampleOf(document: string): string {
  const [, code] = /```ts\n(import .* from 'keiki';\n.*?)```/s.exec(document) ?? [];
  assert.ok(code !== undefined, 'the README has an example that imports keiki');
  return code;
}

/** What the compiler has to say about the file. */
function complaintsAbout(path: string): string[] {
  const { config } = ts.readConfigFile('tsconfig.json', (file) => ts.sys.readFile(file)) as {
    config: object;
  };
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, process.cwd());
  const program = ts.createProgram([path], options);
  return ts
    .getPreEmitDiagnostics(program)
    .map(({ messageText: text }) => (typeof text === 'string' ? text : text.messageText));
}

test('the example of the README compiles, and prints what the README says', () => {
  // Within the project, so that the compiler finds the types of Node.
  mkdirSync('tmp', { recursive: true });
  const folder = mkdtempSync(resolve('tmp/example-'));
  try {
    const path = join(folder, 'example.ts');
    writeFileSync(path, exampleOf(README));
    assert.deepEqual(complaintsAbout(path), []);
    const options = [
      '--import',
      pathToFileURL(resolve('node_modules/tsx/dist/esm/index.mjs')).href,
    ];
    const printed = execFileSync(process.execPath, [...options, path], {
      cwd: folder,
      encoding: 'utf8',
      env: { ...process.env, TSX_TSCONFIG_PATH: resolve('tsconfig.json') },
    });
    const [, promised] = /It prints `(.*?)`;/.exec(README) ?? [];
    assert.equal(printed.trim(), promised);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('the example has about twenty lines of code', () => {
  const lines = exampleOf(README)
    .split('\n')
    .filter((line) => line !== '');
  assert.ok(lines.length <= 24, `${lines.length} lines`);
});
