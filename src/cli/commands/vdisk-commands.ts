/** Vdisks: create, list, show, delete, resize, rename. */

import type { Vdisk } from '../../control/schemas.js';
import { toAnyName } from '../arguments.js';
import type { CommandRow, Context } from '../command-table.js';
import { formatList, formatVdisk } from '../describe-vdisk.js';
import { CommandError } from '../failure.js';
import { formatSize } from '../figures.js';
import { ANY_NAME_ROW, NEW_NAME_ROW, SIZE_FLAG, VDISK_ROW } from './rows.js';

const create: CommandRow = {
  name: 'create',
  summary: 'A new vdisk that reads as zeros',
  usage: 'NAME --size SIZE',
  details: 'It takes space only for what is written to it.',
  arguments: [NEW_NAME_ROW],
  flags: [{ ...SIZE_FLAG, isRequired: true }],
  examples: ['keiki create scratch --size 20G'],
  run: async (context, { arguments: [name], flags }) => {
    const body = { name: name as string, sizeBytes: flags.size as number };
    const vdisk = await context.api.call('createVdisk', { body });
    await answerVdisk(context, vdisk, `${vdisk.name}: ${formatSize(vdisk.sizeBytes)}`);
    return undefined;
  },
};

const list: CommandRow = {
  name: 'list',
  summary: 'All vdisks and snapshots',
  usage: '[NAME] [--names]',
  details:
    'MAPPED is data that its own tree names; of these, SHARED is named by another tree, too, and ' +
    'OWN by none.',
  arguments: [
    {
      name: 'NAME',
      summary: 'this vdisk and its snapshots only',
      completes: 'vdisk',
      isOptional: true,
      parse: toAnyName,
    },
  ],
  flags: [{ name: 'names', summary: 'names only, one a line' }],
  examples: ['keiki list', 'keiki list --json | jq -r ".vdisks[].name"'],
  run: async (context, { arguments: [given], flags }) => {
    const { output } = context;
    const name = given as string | undefined;
    const all = await context.api.call('listVdisks', {});
    const vdisks = all.vdisks.filter(
      (vdisk) => name === undefined || vdisk.name === name || vdisk.name.startsWith(`${name}@`),
    );
    if (name !== undefined && vdisks.length === 0) {
      throw new CommandError('not-found', `there is no vdisk ${name}`);
    }
    if (context.isJson) await output.printJson({ vdisks });
    else if (flags.names === true) {
      if (vdisks.length > 0) await output.print(vdisks.map((vdisk) => vdisk.name).join('\n'));
    } else if (vdisks.length > 0) {
      await output.print(formatList(vdisks, (title) => output.style('bold', title)));
    } else {
      await context.say('No vdisk yet: make one with `keiki create NAME --size 20G`.');
    }
    return undefined;
  },
};

const show: CommandRow = {
  name: 'show',
  summary: 'One vdisk or snapshot: sizes, lineage, split, who uses it',
  usage: 'NAME [--exact]',
  arguments: [ANY_NAME_ROW],
  flags: [
    {
      name: 'exact',
      summary:
        'also what it reads through and what its deletion gives back, by a walk over its metadata',
    },
  ],
  examples: ['keiki show web1', 'keiki show golden@v1 --json'],
  run: async (context, { arguments: [given], flags }) => {
    const { api, output } = context;
    const name = given as string;
    const vdisk = await api.call('getVdisk', { params: { name } });
    const scan =
      flags.exact === true ? await api.call('scanVdisk', { params: { name } }) : undefined;
    if (context.isJson) {
      await output.printJson(scan === undefined ? vdisk : { ...vdisk, scan });
      return undefined;
    }
    const jobId = vdisk.split?.jobId ?? undefined;
    const [{ vdisks: all }, { attachments }, splitJob] = await Promise.all([
      api.call('listVdisks', {}),
      api.call('listAttachments', {}),
      jobId === undefined ? undefined : api.call('getJob', { params: { id: jobId } }),
    ]);
    const attachment = attachments.find((each) => each.vdisk === name);
    const facts = { vdisk, all, attachment, splitJob, scan };
    await output.print(formatVdisk(facts, (text) => output.style('bold', text)));
    return undefined;
  },
};

const remove: CommandRow = {
  name: 'delete',
  summary: 'Deletes vdisks and snapshots',
  usage: 'NAME... [--in-use refuse|defer|split]',
  details:
    'They are gone when it ends; their space comes back in the background. What has clones, ' +
    'snapshots or clients is refused, and they are listed. With --in-use defer, clones do not ' +
    'matter: the name goes at once, of a vdisk with its snapshots, and the space comes back when ' +
    'the last clone has been split or deleted; with split, every clone is split, too, by ' +
    'sharing. Clients always matter. Several are deleted in the order given, until one is refused.',
  arguments: [{ ...ANY_NAME_ROW, isMany: true }],
  flags: [
    {
      name: 'in-use',
      takes: 'HOW',
      choices: ['refuse', 'defer', 'split'],
      fallback: 'refuse',
      summary: 'what to do if clones read through it',
    },
  ],
  examples: ['keiki delete golden@v1 golden', 'keiki delete golden --in-use split'],
  run: async (context, { arguments: [names], flags }) => {
    const deleted: string[] = [];
    const query = { inUse: flags['in-use'] as 'refuse' | 'defer' | 'split' };
    try {
      for (const name of names as string[]) {
        await context.api.call('deleteVdisk', { params: { name }, query });
        deleted.push(name);
        await context.say(`${name}: deleted`);
      }
    } finally {
      if (context.isJson && deleted.length > 0) await context.output.printJson({ deleted });
    }
    return undefined;
  },
};

const resize: CommandRow = {
  name: 'resize',
  summary: 'Makes a vdisk larger or smaller',
  usage: 'NAME --size SIZE [--shrink]',
  details: 'Its clients see the new size when they connect again.',
  arguments: [VDISK_ROW],
  flags: [
    { ...SIZE_FLAG, isRequired: true },
    { name: 'shrink', summary: 'cut it off: what lies behind the end is lost' },
  ],
  examples: ['keiki resize web1 --size 40G'],
  run: async (context, { arguments: [given], flags }) => {
    const name = given as string;
    const sizeBytes = flags.size as number;
    const before = await context.api.call('getVdisk', { params: { name } });
    if (sizeBytes < before.sizeBytes && flags.shrink !== true) {
      const sizes = `${before.sizeBytes} bytes, more than ${sizeBytes}`;
      const next = 'what lies behind the end would be lost: say --shrink if that is meant';
      throw new CommandError('usage', `${name} has ${sizes}: ${next}`);
    }
    const vdisk = await context.api.call('changeVdisk', { params: { name }, body: { sizeBytes } });
    const sizes = `${formatSize(before.sizeBytes)} -> ${formatSize(vdisk.sizeBytes)}`;
    await answerVdisk(context, vdisk, `${name}: ${sizes}`);
    return undefined;
  },
};

const rename: CommandRow = {
  name: 'rename',
  summary: 'Gives a vdisk, with its snapshots, or one snapshot another name',
  usage: 'NAME NEW',
  arguments: [
    ANY_NAME_ROW,
    {
      name: 'NEW',
      summary: 'its new name; of a snapshot with or without vdisk@',
      completes: 'nothing',
      parse: toAnyName,
    },
  ],
  flags: [],
  examples: ['keiki rename web1 shop', 'keiki rename golden@v1 golden@2026-01'],
  run: async (context, { arguments: [given, to] }) => {
    const name = given as string;
    const newName = newNameFor(name, to as string);
    const ask = { params: { name }, body: { name: newName } };
    await answerVdisk(context, await context.api.call('changeVdisk', ask), `${name} -> ${newName}`);
    return undefined;
  },
};

/** `v2` for golden@v1 is golden@v2. */
function newNameFor(name: string, to: string): string {
  const at = name.indexOf('@');
  if (at < 0 && to.includes('@')) {
    throw new CommandError('usage', `${name} is a vdisk, and ${to} would be a snapshot`);
  }
  return at < 0 || to.includes('@') ? to : `${name.slice(0, at)}@${to}`;
}

export async function answerVdisk(context: Context, vdisk: Vdisk, line: string): Promise<void> {
  if (context.isJson) await context.output.printJson(vdisk);
  else await context.say(line);
}

export const VDISK_COMMANDS: readonly CommandRow[] = [create, list, show, remove, resize, rename];
