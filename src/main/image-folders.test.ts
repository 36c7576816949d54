import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { ofKind } from '../../test/support/stores.js';
import { openWithin } from './image-folders.js';

let root: string;
before(async () => {
  root = await mkdtemp(join(tmpdir(), 'keiki-folders-'));
  for (const folder of ['images', 'images/more', 'images-not', 'secret']) {
    await mkdir(join(root, folder));
    await writeFile(join(root, folder, 'disk.raw'), 'x');
  }
  await symlink(join(root, 'secret/disk.raw'), join(root, 'images/link.raw'));
  await symlink(join(root, 'secret'), join(root, 'images/linked'));
  await symlink(join(root, 'images'), join(root, 'pictures'));
});
after(() => rm(root, { recursive: true }));

const refused = ofKind('invalid', 'images.folders');

async function opens(folder: string, path: string): Promise<void> {
  const file = await openWithin([join(root, folder)])(join(root, path));
  await file.close();
}

test('a file below a folder is opened, whether folder or path is a link', async () => {
  await opens('images', 'images/disk.raw');
  await opens('images', 'images/more/disk.raw');
  await opens('images', 'images/more/../disk.raw');
  await opens('pictures', 'images/disk.raw');
  await opens('images', 'pictures/disk.raw');
  await opens('', 'secret/disk.raw');
});

test('anything else is refused, wherever links lead', async () => {
  const others = ['secret', 'images-not', 'images/linked', 'images/../secret'].map(
    (folder) => `${folder}/disk.raw`,
  );
  for (const path of [...others, 'images/link.raw', 'none/disk.raw', 'images/../none.raw']) {
    await assert.rejects(opens('images', path), refused, path);
  }
  await assert.rejects(openWithin([])(join(root, 'images/disk.raw')), refused);
});

test('what is not there is told only within the folders', async () => {
  await assert.rejects(opens('images', 'images/none.raw'), ofKind('not-found', 'none.raw'));
});
