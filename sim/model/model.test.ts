/** What the model says of who holds on to whom, while acts and splits are under way. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SECTOR_BYTES } from '../../src/base/units.js';
import { Contents } from '../content.js';
import { type ModelDisk, Moments } from './disk.js';
import { type ActUnderWay, Model } from './model.js';

class Scene {
  readonly model = new Model({ contents: new Contents(), moments: new Moments() });

  disk(name: string): ModelDisk {
    const found = this.model.find(name);
    assert.ok(found !== undefined, name);
    return found;
  }

  done(act: ActUnderWay): void {
    this.model.endAct(act, 'done');
  }

  snapshot(of: string, name: string): void {
    this.done(this.model.beginSnapshot([{ disk: this.disk(of), name }]));
  }

  /** golden with a snapshot v, and clones of that. */
  static withClones(...clones: string[]): Scene {
    const scene = new Scene();
    scene.done(scene.model.beginCreate('golden', SECTOR_BYTES));
    scene.snapshot('golden', 'v');
    for (const name of clones) scene.done(scene.model.beginClone(scene.disk('golden@v'), name));
    return scene;
  }
}

test('a clone hangs on its backing store in mid-snapshot, too', () => {
  const scene = Scene.withClones('clone');
  const { model } = scene;
  const layers = new Set([scene.disk('golden@v').layer]);
  assert.ok(model.hangsOn(scene.disk('clone'), layers));
  const act = model.beginSnapshot([{ disk: scene.disk('clone'), name: 's' }]);
  assert.ok(model.hangsOn(scene.disk('clone'), layers), 'its past has no name yet');
  scene.done(act);
  assert.ok(model.hangsOn(scene.disk('clone'), layers), 'its past has one');
  scene.done(model.beginClone(scene.disk('clone@s'), 'next'));
  assert.ok(!model.hangsOn(scene.disk('next'), layers), 'it hangs on that of the clone');
});

test('who may have been cut off holds nothing for certain', () => {
  const scene = Scene.withClones('a', 'b');
  const { model } = scene;
  assert.equal(model.mustStay(scene.disk('golden@v')), 'certainly');
  for (const name of ['a', 'b']) {
    const { layer } = scene.disk(name);
    model.endSplit(scene.disk(name), { mode: 'copy', layer, isSure: false, isDurable: true });
  }
  assert.equal(model.mustStay(scene.disk('golden@v')), 'perhaps');
  assert.equal(
    model.foreignBacking(scene.disk('a'))?.isSure,
    false,
    'nor is a split sure to begin',
  );
});
