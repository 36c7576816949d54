/** Image files of the server as backing stores: made, and told where they have gone. */
import { resolve } from 'node:path';
import type { CommandRow, FlagRow } from '../command-table.js';
import { formatSize } from '../figures.js';
import { NEW_NAME_ROW, VDISK_ROW } from './rows.js';
import { answerVdisk } from './vdisk-commands.js';

const FILE_ROW = {
  name: 'FILE',
  summary: 'raw or qcow2 file on the machine of the server',
  completes: 'file',
  parse: (text: string): string => resolve(text),
} as const;

const FORMAT_FLAG: FlagRow = {
  name: 'format',
  takes: 'FORMAT',
  choices: ['raw', 'qcow2'],
  summary: "what the file is; otherwise its first bytes decide. Say it when it is a stranger's",
};

type Format = 'raw' | 'qcow2' | undefined;

const external: CommandRow = {
  name: 'external',
  summary: 'A disk image as backing store, without import',
  usage: 'FILE NAME [--format FORMAT]',
  details:
    'Clones of it start at once, and read the file until they are split. The server has to be ' +
    'allowed to read it (`images.folders`), and nobody may write to it.',
  arguments: [FILE_ROW, NEW_NAME_ROW],
  flags: [FORMAT_FLAG],
  examples: ['keiki external /srv/images/debian.qcow2 debian', 'keiki clone debian web1 web2'],
  run: async (context, { arguments: [path, name], flags }) => {
    const format = flags.format as Format;
    const body = { name: name as string, path: path as string, ...(format && { format }) };
    const vdisk = await context.api.call('createExternal', { body });
    const size = formatSize(vdisk.sizeBytes);
    await answerVdisk(context, vdisk, `${vdisk.name}: ${size}, in ${body.path}`);
    return undefined;
  },
};

const relocate: CommandRow = {
  name: 'relocate',
  summary: 'Says where the file of an external backing store is now',
  usage: 'NAME FILE [--format FORMAT] [--trust]',
  details:
    'The file has to look as it did: size, first and last bytes, time. With --trust it may look ' +
    'different, a raw copy of a qcow2 file say: you know that it holds the same disk.',
  arguments: [VDISK_ROW, FILE_ROW],
  flags: [FORMAT_FLAG, { name: 'trust', summary: 'the file may look different' }],
  examples: ['keiki relocate debian /mnt/images/debian.qcow2'],
  run: async (context, { arguments: [name, path], flags }) => {
    const format = flags.format as Format;
    const body = {
      path: path as string,
      ...(format && { format }),
      ...(flags.trust === true && { trust: true }),
    };
    const ask = { params: { name: name as string }, body };
    const vdisk = await context.api.call('relocateExternal', ask);
    await answerVdisk(context, vdisk, `${vdisk.name}: in ${body.path}`);
    return undefined;
  },
};

export const EXTERNAL_COMMANDS: readonly CommandRow[] = [external, relocate];
