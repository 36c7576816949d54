import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';

interface Manifest {
  readonly version: string;
  readonly bin: { readonly keiki: string };
}

test('the built package can be imported by its name and started, in plain Node', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'keiki-package-'));
  try {
    const compiler = 'node_modules/typescript/bin/tsc';
    const options = ['-p', 'tsconfig.build.json', '--outDir', join(folder, 'dist')];
    execFileSync(process.execPath, [compiler, ...options], { stdio: 'inherit' });
    copyFileSync('package.json', join(folder, 'package.json'));
    const manifest = JSON.parse(readFileSync('package.json', 'utf8')) as Manifest;
    const program = "import('keiki').then((keiki) => console.log(Object.keys(keiki).join(' ')))";
    const names = execFileSync(process.execPath, ['--eval', program], {
      cwd: folder,
      encoding: 'utf8',
    });
    const library = pathToFileURL('src/main/library.ts').href;
    const expected = Object.keys((await import(library)) as object);
    assert.ok(expected.includes('openStore'), 'the entry exports openStore');
    assert.deepEqual(names.trim().split(' ').sort(), expected.sort());
    assert.ok(existsSync(join(folder, 'dist/main/library.d.ts')), 'types are built');
    // The command line needs the packages that npm installs beside this one.
    symlinkSync(resolve('node_modules'), join(folder, 'node_modules'));
    cpSync('bin', join(folder, 'bin'), { recursive: true });
    const bin = join(folder, manifest.bin.keiki);
    const version = execFileSync(bin, ['--version'], { cwd: folder, encoding: 'utf8' });
    assert.equal(version, `${manifest.version}\n`);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

interface LockFile {
  readonly packages: Record<string, { optionalDependencies?: Record<string, string> }>;
}

test('the lock file knows the packages of every platform, as npm ci demands', () => {
  const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as LockFile;
  // A registry that lacks the packages of other platforms makes `npm install` leave them out.
  const missing = Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter(
      (name) =>
        packages[`${path}/node_modules/${name}`] === undefined &&
        packages[`node_modules/${name}`] === undefined,
    ),
  );
  assert.deepEqual(missing, [], 'add them by hand: version, optional, os and cpu are enough');
});
