/**
 * The main job on this machine, told as a story:
 *
 *   npm run quickstart                         in tmp/quickstart, all files deleted at the end
 *   npm run quickstart -- --dir=FOLDER         elsewhere
 *   npm run quickstart -- --keep               leaves store and image there
 *   npm run quickstart -- --image-mib=64       a smaller disk (default 256)
 *
 * Kill it anywhere, with any signal, and run it again: it says what it found, and goes on there.
 * Exit code 0: every proof holds; 1: one does not, or something failed.
 */
import { readdirSync, rmdirSync, rmSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { MIB } from '../src/base/units.js';
import { Lab } from './quickstart/lab.js';
import { MainJob } from './quickstart/main-job.js';
import { Story } from './quickstart/story.js';

const { values } = parseArgs({
  options: {
    dir: { type: 'string', default: resolve(import.meta.dirname, '../tmp/quickstart') },
    keep: { type: 'boolean', default: false },
    'image-mib': { type: 'string', default: '256' },
  },
});

/** Golden disk, its copy, and what a copy-on-write store needs besides. */
const STORE_PER_IMAGE = 4;
const IMAGE_MIB_MIN = 64;

async function main(): Promise<boolean> {
  const folder = relative('', resolve(values.dir)) || '.';
  const imageMib = Number(values['image-mib']);
  if (!Number.isInteger(imageMib / 8) || imageMib < IMAGE_MIB_MIN) {
    throw new Error(`--image-mib must be a multiple of 8, at least ${IMAGE_MIB_MIN}`);
  }
  const imageBytes = imageMib * MIB;
  const story = new Story();
  story.title('Keiki: a golden disk, three clones, and a split under load', `in ${folder}/`);
  const lab = new Lab(folder, STORE_PER_IMAGE * imageBytes);
  const isProven = await new MainJob(story, lab, { folder, imageBytes }).run();
  // While the store is still locked: a run that waits for it begins with an empty folder.
  if (isProven && !values.keep) removeFiles(folder);
  await lab.close();
  if (readdirSync(folder).length === 0) rmdirSync(folder);
  const end = isProven ? 'Every clone is what it should be' : 'NOT everything is what it should be';
  story.say(`\n${end}: ${story.seconds.toFixed(1)} s in all.`);
  return isProven;
}

function removeFiles(folder: string): void {
  for (const name of readdirSync(folder)) {
    if (!/^(golden\.(img|json)|web\.img|disks\.keiki|flushed\.txt)$/.test(name)) continue;
    rmSync(join(folder, name));
  }
}

// Whoever listened has gone: nothing can be told any more.
process.stdout.on('error', () => process.exit(1));
try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  process.stdout.write('\n');
  console.error(`quickstart: ${error instanceof Error ? error.message : String(error)}`);
  process.exit(1);
}
