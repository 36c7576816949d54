/** Snapshots that other stores may clone. */
import type { CommandRow } from '../command-table.js';
import { formatCount, formatSize } from '../figures.js';
import { SNAPSHOT_ROW } from './rows.js';
import { answerVdisk } from './vdisk-commands.js';

const publish: CommandRow = {
  name: 'publish',
  summary: 'Lets other stores clone a snapshot',
  usage: 'VDISK@SNAP',
  details:
    'Of a store on an object store. They read it from its records there, whether this server ' +
    'runs or not. It cannot be deleted until it is unpublished.',
  arguments: [SNAPSHOT_ROW],
  flags: [],
  examples: ['keiki publish golden@v1', 'keiki clone s3://disks/library#golden@v1 web1'],
  run: async (context, { arguments: [name] }) => {
    const params = { name: name as string };
    const vdisk = await context.api.call('publishSnapshot', { params });
    const { publications } = await context.api.call('listPublications', {});
    const address = publications.find((each) => each.name === vdisk.name)?.address ?? '';
    await answerVdisk(context, vdisk, `${vdisk.name}: others clone it as ${address}`);
    return undefined;
  },
};

const unpublish: CommandRow = {
  name: 'unpublish',
  summary: 'Takes back what was published',
  usage: 'VDISK@SNAP [--drop-holders]',
  details:
    'Refused as long as clones in other stores read it; these stores are listed. With ' +
    '--drop-holders they do not matter, and cannot read any more what they have not split: for ' +
    'stores that are gone for good.',
  arguments: [SNAPSHOT_ROW],
  flags: [{ name: 'drop-holders', summary: 'even if other stores read it: they lose it' }],
  examples: ['keiki unpublish golden@v1'],
  run: async (context, { arguments: [name], flags }) => {
    const query = flags['drop-holders'] === true ? { dropHolders: 'true' as const } : {};
    const ask = { params: { name: name as string }, query };
    const vdisk = await context.api.call('unpublishSnapshot', ask);
    await answerVdisk(context, vdisk, `${vdisk.name}: not published any more`);
    return undefined;
  },
};

const published: CommandRow = {
  name: 'published',
  summary: 'What is published, and which stores read it',
  usage: '',
  arguments: [],
  flags: [],
  examples: ['keiki published'],
  run: async (context) => {
    const answer = await context.api.call('listPublications', {});
    if (context.isJson) {
      await context.output.printJson(answer);
      return undefined;
    }
    const lines = answer.publications.flatMap(({ name, address, sizeBytes, holders }) => {
      const stores = formatCount(holders.length, 'store');
      const head = `${name}: ${formatSize(sizeBytes)}, ${address}, read by ${stores}`;
      return [head, ...holders.map((holder) => `  ${holder.store} as ${holder.name}`)];
    });
    if (lines.length > 0) await context.output.print(lines.join('\n'));
    else await context.say('Nothing is published: publish a snapshot with `keiki publish NAME`.');
    return undefined;
  },
};

export const PUBLISH_COMMANDS: readonly CommandRow[] = [publish, unpublish, published];
