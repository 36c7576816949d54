/** What the model lets a reader see of writes that overlap each other and a snapshot. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SECTOR_BYTES } from '../../src/base/units.js';
import { Contents } from '../content.js';
import { ModelDisk, Moments, type WriteUnderWay } from './disk.js';
import { Layer } from './layer.js';
import { Violation } from './violation.js';

class Scene {
  readonly moments = new Moments();
  readonly disk = new ModelDisk(
    { contents: new Contents(), moments: this.moments },
    { id: 1, kind: 'vdisk', name: 'd', sizeBytes: SECTOR_BYTES, layer: new Layer() },
  );

  write(): { write: WriteUnderWay; data: Buffer } {
    return this.disk.beginWrite(0, SECTOR_BYTES);
  }

  zero(): WriteUnderWay {
    return this.disk.beginZero(0, SECTOR_BYTES);
  }

  end(write: WriteUnderWay): void {
    this.disk.endWrite(write, 'done');
  }

  snapshot(during: () => void = () => undefined): void {
    this.disk.beginSnapshot();
    during();
    this.disk.endSnapshot();
  }

  mayRead(bytes: Buffer): boolean {
    try {
      this.disk.checkRead(0, bytes, this.moments.next());
      return true;
    } catch (error) {
      assert.ok(error instanceof Violation);
      return false;
    }
  }
}

const ZEROS = Buffer.alloc(SECTOR_BYTES);

/** Old data, flushed; then zeros and a write that overlap, and a snapshot before the zeros end. */
function overlapped(first: 'write' | 'zeros', endsBefore: boolean): [Scene, Buffer, Buffer] {
  const scene = new Scene();
  const old = scene.write();
  scene.end(old.write);
  scene.disk.settle(scene.moments.next());
  const early = first === 'write' ? scene.write() : undefined;
  const zeros = scene.zero();
  const { write, data } = early ?? scene.write();
  if (endsBefore) scene.end(write);
  scene.snapshot();
  if (!endsBefore) scene.end(write);
  scene.end(zeros);
  return [scene, old.data, data];
}

for (const first of ['write', 'zeros'] as const) {
  for (const endsBefore of [true, false]) {
    const when = `${first} first, the write ends ${endsBefore ? 'before' : 'after'} the snapshot`;
    test(`overlapping writes may come in either order: ${when}`, () => {
      assert.ok(overlapped(first, endsBefore)[0].mayRead(ZEROS), 'the zeros last');
      const [scene, , data] = overlapped(first, endsBefore);
      assert.ok(scene.mayRead(data), 'the write last');
    });

    test(`and what was before them is gone: ${when}`, () => {
      const [scene, old] = overlapped(first, endsBefore);
      assert.ok(!scene.mayRead(old));
    });
  }
}

test('a write that was answered before the zeros were issued is gone', () => {
  const scene = new Scene();
  const { write, data } = scene.write();
  scene.end(write);
  const zeros = scene.zero();
  scene.snapshot();
  scene.end(zeros);
  assert.ok(!scene.mayRead(data));
  assert.ok(scene.mayRead(ZEROS));
});
