/** External backing stores: images are taken on, go missing, fail a read, come back, and go. */
import { KIB, MIB, SECTOR_BYTES } from '../../src/base/units.js';
import type { Life } from '../life.js';
import { CHUNK_SECTORS, Layer } from '../model/layer.js';
import { SimulatedImage } from '../world/simulated-externals.js';
import { ask, cloneNamed, DISKS_MAX, deleteOne, expectDone, isFree, newName } from './admin.js';

const SIZES = [64 * KIB, MIB + SECTOR_BYTES, 2 * MIB + 300 * KIB + 3 * SECTOR_BYTES];
/** Of so many sectors in a row, some have data. */
const STRETCH_SECTORS = 48;
const AWAY_MS_MAX = 20;

/** An image of stretches of data and of zeros, and what the model knows of it. */
function drawImage(life: Life, sizeBytes: number): { image: SimulatedImage; layer: Layer } {
  const { contents } = life.model;
  const bytes = Buffer.alloc(sizeBytes);
  const chunks = new Map<number, Int32Array>();
  for (let sector = 0; sector < sizeBytes / SECTOR_BYTES; sector++) {
    const chunk = Math.floor(sector / CHUNK_SECTORS);
    const stamps = chunks.get(chunk) ?? new Int32Array(CHUNK_SECTORS);
    chunks.set(chunk, stamps);
    if (Math.floor(sector / STRETCH_SECTORS) % 3 === 2) continue;
    const stamp = contents.newStamp();
    contents.fillSector(bytes, sector * SECTOR_BYTES, stamp, sector);
    stamps[sector % CHUNK_SECTORS] = stamp;
  }
  const layer = new Layer();
  layer.adopt(chunks);
  return { image: new SimulatedImage(bytes), layer };
}

export async function createExternal(life: Life): Promise<void> {
  const { model, random, parts } = life;
  const count = model.disks.filter(({ kind }) => kind === 'external').length;
  if (model.disks.length >= DISKS_MAX || count >= 3) return;
  const name = newName('e');
  const path = `/images/${name}`;
  const { image, layer } = drawImage(life, SIZES[random.below(SIZES.length)] ?? MIB);
  parts.images.set(path, image);
  const act = model.beginExternal(name, image.sizeBytes, layer);
  const answer = await ask(life, 'create-external', act, () =>
    life.store.createExternal(name, path),
  );
  image.isTakenOn = true;
  expectDone(life, 'create-external', act.what, answer);
}

export async function cloneExternal(life: Life): Promise<void> {
  const { model } = life;
  if (model.disks.length >= DISKS_MAX) return;
  const source = life.pick(
    model.disks.filter((disk) => disk.kind === 'external' && isFree(life, disk)),
  );
  if (source !== undefined) await cloneNamed(life, source, newName('c'));
}

/** For a while an image is away, or some of its reads fail. */
export async function troubleExternal(life: Life): Promise<void> {
  const { random, parts } = life;
  const known = [...parts.images].filter(([, image]) => image.isTakenOn && !image.isMissing);
  const [path, image] = life.pick(known) ?? [];
  if (path === undefined || image === undefined) return;
  parts.trace?.(`  ${path} is in trouble`);
  if (random.chance(0.5)) {
    image.failures = 1 + random.below(4);
    return;
  }
  image.isMissing = true;
  await life.sleep(AWAY_MS_MAX * random.nextFraction());
  image.isMissing = false;
}

export async function deleteExternal(life: Life): Promise<void> {
  const { model } = life;
  const disk = life.pick(
    model.disks.filter((each) => each.kind === 'external' && isFree(life, each)),
  );
  if (disk !== undefined) await deleteOne(life, disk);
}
