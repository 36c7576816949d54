/** The images of the fuzzer, in real files: what we read of them is what qemu-img reads. */
import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { after, describe, it } from 'node:test';
import { isStoreError } from '../../../src/base/store-error.js';
import { MIB } from '../../../src/base/units.js';
import { seededRandom } from '../../../src/env/seeded-random.js';
import { openImage } from '../../../src/image/open-image.js';
import { mutatedImages, newFolder } from '../../support/mutated-images.js';
import { run } from '../nbd/nbd-clients.js';
import { ImageFolder } from './qemu-images.js';

const folder = new ImageFolder();
after(() => folder.remove());

/** Images of one seed are tried until so many were read. */
const READ_COUNT = 40;
/** A disk of which the size was changed may be as large as disks get. */
const SIZE_MAX = 8 * MIB;

async function readByUs(path: string): Promise<Buffer | undefined> {
  try {
    const reader = await openImage(path, { format: 'qcow2' });
    const isSmall = reader.sizeBytes <= SIZE_MAX;
    const bytes = Buffer.alloc(isSmall ? reader.sizeBytes : 0);
    await reader.read(0, bytes).finally(() => reader.close());
    return isSmall ? bytes : undefined;
  } catch (error) {
    assert.ok(isStoreError(error), String(error));
    return undefined;
  }
}

async function readByQemu(path: string): Promise<Buffer | undefined> {
  const raw = `${path}.raw`;
  const args = ['convert', '-f', 'qcow2', '-O', 'raw', path, raw];
  const { code } = await run('qemu-img', args);
  const bytes = code === 0 ? readFileSync(raw) : undefined;
  rmSync(raw, { force: true });
  return bytes;
}

function writeFolder(): void {
  for (const [path, bytes] of newFolder().files) writeFileSync(folder.at(path), bytes);
}

describe('images made by hand', () => {
  it('sound ones', async () => {
    writeFolder();
    for (const path of newFolder().files.keys()) {
      if (path === '/raw' || path === '/over-raw') continue;
      const ours = await readByUs(folder.at(path));
      const qemus = await readByQemu(folder.at(path));
      assert.ok(ours !== undefined && qemus !== undefined && ours.equals(qemus), path);
    }
  });

  for (const seed of [1, 2]) {
    it(`mutated ones, seed ${seed}`, async () => {
      let readCount = 0;
      for (const { name, bytes } of mutatedImages(seededRandom(seed))) {
        if (readCount === READ_COUNT) break;
        writeFolder();
        writeFileSync(folder.at(name), bytes);
        const ours = await readByUs(folder.at(name));
        if (ours === undefined) continue;
        const qemus = await readByQemu(folder.at(name));
        // It refuses some of what no reader needs, such as reference counts.
        if (qemus === undefined) continue;
        assert.ok(ours.equals(qemus), `seed ${seed}, ${name}`);
        readCount++;
      }
      assert.ok(readCount > 20, `${readCount} images were read by both`);
    });
  }
});
