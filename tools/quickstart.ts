/**
 * The main job on this machine, told as a story:
 *
 *   npm run quickstart                         in tmp/quickstart, all files deleted at the end
 *   npm run quickstart -- --dir=FOLDER         elsewhere
 *   npm run quickstart -- --keep               leaves store and image there
 *   npm run quickstart -- --image-mib=64       a smaller disk (default 256)
 *   npm run quickstart -- --store=s3://BUCKET/PREFIX --s3-endpoint=URL
 *                                              on an object store; it is left there
 *
 * Kill it anywhere, with any signal, and run it again: it says what it found, and goes on there.
 * Exit code 0: every proof holds; 1: one does not, or something failed.
 */
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { MIB } from '../src/base/units.js';
import { Folder, shorter } from './quickstart/folder.js';
import { Keiki } from './quickstart/keiki.js';
import { MainJob } from './quickstart/main-job.js';
import { Server } from './quickstart/server.js';
import { Story } from './quickstart/story.js';

/** Golden disk, its copy, and what a copy-on-write store needs besides. */
const STORE_PER_IMAGE = 4;
const IMAGE_MIB_MIN = 64;

interface Options {
  readonly dir: string;
  readonly keep: boolean;
  readonly imageMib: number;
  /** The store's address and flags, if it is no file. */
  readonly remote: readonly string[] | undefined;
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      dir: { type: 'string', default: resolve(import.meta.dirname, '../tmp/quickstart') },
      keep: { type: 'boolean', default: false },
      'image-mib': { type: 'string', default: '256' },
      store: { type: 'string' },
      's3-endpoint': { type: 'string' },
    },
  });
  const imageMib = Number(values['image-mib']);
  if (!Number.isInteger(imageMib / 8) || imageMib < IMAGE_MIB_MIN) {
    throw new Error(`--image-mib must be a multiple of 8, at least ${IMAGE_MIB_MIN}`);
  }
  const endpoint = values['s3-endpoint'];
  const flags = endpoint === undefined ? [] : ['--s3-endpoint', endpoint];
  const remote = values.store === undefined ? undefined : [values.store, ...flags];
  return { dir: shorter(resolve(values.dir)), keep: values.keep, imageMib, remote };
}

async function main({ dir, keep, imageMib, remote }: Options): Promise<boolean> {
  const story = new Story();
  story.title('Keiki: a golden disk, three clones, and a split under load', `in ${dir}/`);
  let isTold = false;
  const folder = await Folder.lock(dir, () => {
    if (!isTold) story.say('another run is in this folder: waiting for its end');
    isTold = true;
  });
  const keiki = new Keiki(story, folder);
  const server = new Server(folder, keiki, `${STORE_PER_IMAGE * imageMib}M`, remote);
  try {
    const job = new MainJob({ story, folder, server, keiki }, imageMib * MIB);
    const isProven = await job.run();
    // While the folder is still locked: a run that waits for it begins with an empty one.
    if (isProven && !keep) folder.remove();
    tellEnd(story, isProven);
    if (isProven) tellNext(story, keiki, server, keep);
    else story.say(`The files are left in ${dir}/; the server's log is ${folder.log}.`);
    return isProven;
  } finally {
    await server.stop();
    folder.close();
  }
}

function tellEnd(story: Story, isProven: boolean): void {
  const end = isProven ? 'Every clone is what it should be' : 'NOT everything is what it should be';
  story.heading(`${end}: ${story.seconds.toFixed(1)} s in all.`);
}

/** @param isKept  the store is left, to try things on */
function tellNext(story: Story, keiki: Keiki, server: Server, isKept: boolean): void {
  story.heading('What to try next');
  if (!isKept) {
    story.say('Your own disk:');
    story.command(`${keiki.line(['serve', '--store', 'disks.keiki', '--size', '64G'])} &`);
    story.command(keiki.line(['import', 'DISK.qcow2', 'golden']));
    story.say('This store, to play with (--keep leaves it, and says how to go on):');
    story.command('npm run quickstart -- --keep');
  } else {
    story.say('The store is left as it is. Start its server again; web has its socket again, too:');
    story.command(keiki.environmentLine);
    story.command(`${server.commandLine} &`);
    story.command(keiki.line(['show', 'web']));
    story.command(keiki.line(['snapshot', 'web', 'today']));
    story.command(keiki.line(['clone', 'web@today', 'shop']));
    story.command(keiki.line(['diff', 'web@today', 'web']));
    story.say('`npm run quickstart` begins anew when that server has ended.');
  }
  story.say('All commands, the API, the settings, and how it works:');
  story.command(keiki.line(['help']));
  story.say('docs/CLI.md, docs/API.md, docs/CONFIGURATION.md, docs/DESIGN.md');
  story.say('All tests: npm run verify');
}

// Whoever listened has gone: nothing can be told any more.
process.stdout.on('error', () => process.exit(1));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, (name: string, number: number) => {
    process.stdout.write(`\nended by ${name}: run it again, and it goes on from here\n`);
    // The server, and every program under way, ends with this process.
    process.exit(128 + number);
  });
}
try {
  process.exitCode = (await main(readOptions())) ? 0 : 1;
} catch (error) {
  console.error(`\nquickstart: ${error instanceof Error ? error.message : String(error)}`);
  process.exit(1);
}
