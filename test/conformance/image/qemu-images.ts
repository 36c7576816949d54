/** Images that the real qemu-img and qemu-io make, and what they say about ours. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ImageExtent, ImageReader } from '../../../src/image/image-reader.js';
import { importImage } from '../../../src/image/import-image.js';
import { type OpenImageOptions, openImage } from '../../../src/image/open-image.js';
import { MemoryTarget } from '../../support/memory-target.js';
import { run, runOk } from '../nbd/nbd-clients.js';

export class ImageFolder {
  readonly path = mkdtempSync(join(tmpdir(), 'keiki-images-'));

  at(name: string): string {
    return join(this.path, name);
  }

  async create(name: string, sizeBytes: number, ...options: string[]): Promise<string> {
    const flags = options.length === 0 ? [] : ['-o', options.join(',')];
    await runOk('qemu-img', [
      'create',
      '-q',
      '-f',
      'qcow2',
      ...flags,
      this.at(name),
      `${sizeBytes}`,
    ]);
    return this.at(name);
  }

  /** qemu-io tells failures on its output and exits with 0 or 1 as it likes. */
  async io(name: string, commands: readonly string[], format = 'qcow2'): Promise<void> {
    const args = commands.flatMap((command) => ['-c', command]);
    const { code, stdout, stderr } = await run('qemu-io', ['-f', format, ...args, this.at(name)]);
    const said = stdout + stderr;
    assert.ok(code === 0 && !/failed|rror:/.test(said), said);
  }

  /** The disk's bytes, as qemu-img reads them. */
  async rawBytes(name: string, format = 'qcow2'): Promise<Buffer> {
    const raw = this.at(`${name}.by-qemu`);
    await runOk('qemu-img', ['convert', '-f', format, '-O', 'raw', this.at(name), raw]);
    const bytes = readFileSync(raw);
    rmSync(raw);
    return bytes;
  }

  remove(): void {
    rmSync(this.path, { recursive: true });
  }
}

/** Reads the image in every way there is, and compares with what qemu-img has read. */
export async function readsAs(
  path: string,
  expected: Uint8Array,
  options: OpenImageOptions = {},
): Promise<ImageExtent[]> {
  const reader = await openImage(path, options);
  assert.equal(reader.sizeBytes, expected.length);
  for (const length of [4096, 65_536, 1_000_001]) await readsInPieces(reader, expected, length);
  const extents: ImageExtent[] = [];
  for await (const extent of reader.extents()) {
    const { offset, length, kind } = extent;
    const last = extents.at(-1);
    assert.equal(offset, last === undefined ? 0 : last.offset + last.length);
    if (kind !== 'data')
      assert.ok(isZero(expected.subarray(offset, offset + length)), 'it is zeros');
    extents.push(extent);
  }
  for (const isBlank of [true, false]) {
    const target = new MemoryTarget({ sizeBytes: expected.length });
    if (!isBlank) target.write(0, new Uint8Array(expected.length).fill(0xee));
    await importImage(reader, target, { isBlank });
    const bytes = new Uint8Array(expected.length);
    target.read(0, bytes);
    assert.ok(Buffer.compare(bytes, expected) === 0, 'the imported disk is the same');
  }
  await reader.close();
  return extents;
}

/** All pieces at the same time: reads do not disturb one another. */
async function readsInPieces(
  reader: ImageReader,
  expected: Uint8Array,
  length: number,
): Promise<void> {
  const bytes = new Uint8Array(expected.length);
  const reads: Promise<void>[] = [];
  for (let at = 0; at < bytes.length; at += length) {
    reads.push(reader.read(at, bytes.subarray(at, at + length)));
  }
  await Promise.all(reads);
  assert.ok(Buffer.compare(bytes, expected) === 0, `read in pieces of ${length}`);
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}
