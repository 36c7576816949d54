import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { completionScript, SHELLS } from './completion.js';
import { GLOBAL_FLAGS } from './global-flags.js';
import { COMMANDS } from './program.js';

let folder = '';

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'keiki-completion-'));
  mkdirSync(join(folder, 'bin'));
  // Stands in for the program: what a store has.
  const program = '#!/bin/sh\nprintf "golden\\ngolden@v1\\ngolden@v2\\nweb1\\n"\n';
  writeFileSync(join(folder, 'bin/keiki'), program);
  chmodSync(join(folder, 'bin/keiki'), 0o755);
  writeFileSync(join(folder, 'disk one.img'), '');
  for (const shell of SHELLS) {
    writeFileSync(join(folder, shell), completionScript(shell, COMMANDS));
  }
});

after(() => rmSync(folder, { recursive: true }));

const environment = (): NodeJS.ProcessEnv => ({
  ...process.env,
  PATH: `${folder}/bin:${process.env.PATH ?? ''}`,
});

/** What bash offers at the end of each line. */
function inBash(lines: readonly string[]): string[][] {
  const quoted = lines.map((line) => `'${line}'`).join(' ');
  const script = `
    source ./bash
    for COMP_LINE in ${quoted}; do
      COMP_POINT=\${#COMP_LINE} COMPREPLY=()
      _keiki
      printf '%s\\t' "\${COMPREPLY[@]}"; echo
    done`;
  const options = { cwd: folder, env: environment(), encoding: 'utf8' as const };
  const out = execFileSync('bash', ['--norc', '-u', '-c', script], options);
  return out
    .split('\n')
    .slice(0, -1)
    .map((line) => line.split('\t').filter((word) => word !== ''));
}

test('bash offers commands, flags, their values, names and files', () => {
  const names = COMMANDS.map(({ name }) => name);
  const expected: readonly (readonly [string, readonly string[]])[] = [
    ['keiki ', [...names, 'help']],
    ['keiki sp', ['split']],
    ['keiki --json sn', ['snapshot']],
    ['keiki --api /x sn', ['snapshot']],
    ['keiki show ', ['golden', 'golden@v1', 'golden@v2', 'web1']],
    ['keiki show w', ['web1']],
    // Bash itself keeps "golden@": what it replaces begins behind the @.
    ['keiki show golden@', ['v1', 'v2']],
    ['keiki split ', ['golden', 'web1']],
    ['keiki split --mode ', ['copy', 'share']],
    ['keiki split --mode s', ['share']],
    ['keiki split --mode copy g', ['golden']],
    ['keiki split web1 ', []],
    ['keiki split --w', ['--wait', '--window']],
    ['keiki clone ', ['golden@v1', 'golden@v2']],
    ['keiki clone golden@v1 ', []],
    ['keiki delete golden@v1 w', ['web1']],
    ['keiki import disk', ['disk one.img']],
    ['keiki import x ', []],
    ['keiki import --format q', ['qcow2']],
    ['keiki export golden disk', ['disk one.img']],
    ['keiki serve --store disk', ['disk one.img']],
    ['keiki serve --size ', []],
    ['keiki completion z', ['zsh']],
    ['keiki --ver', ['--version']],
  ];
  const offered = inBash(expected.map(([line]) => line));
  for (const [index, [line, words]] of expected.entries()) {
    assert.deepEqual(offered[index]?.toSorted(), words.toSorted(), line);
  }
});

test('each script names every command and every flag, for all shells', () => {
  for (const shell of SHELLS) {
    const script = completionScript(shell, COMMANDS);
    for (const { name, flags } of COMMANDS) {
      assert.ok(script.includes(name), `${shell}: ${name}`);
      for (const flag of [...flags, ...GLOBAL_FLAGS]) {
        const written = shell === 'fish' ? `-l ${flag.name}` : `--${flag.name}`;
        assert.ok(script.includes(written), `${shell}: ${name} --${flag.name}`);
      }
    }
  }
});

test('the shells that are here take their scripts', () => {
  const checks = { bash: ['-n'], zsh: ['-n'], fish: ['--no-execute'] } as const;
  let taken = 0;
  for (const shell of SHELLS) {
    const { error, status, stderr } = spawnSync(shell, [...checks[shell], `./${shell}`], {
      cwd: folder,
      encoding: 'utf8',
    });
    if (error !== undefined && 'code' in error && error.code === 'ENOENT') continue;
    assert.equal(status, 0, `${shell}: ${stderr}`);
    taken++;
  }
  assert.ok(taken > 0, 'bash is always there');
});
