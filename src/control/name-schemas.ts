/** Names of vdisks and snapshots, as requests and answers have them. */
import { Type } from 'typebox';

export const NAME = '[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,254}';

export const VdiskName = Type.String({
  pattern: `^${NAME}$`,
  description:
    'Name of a vdisk, or of a snapshot within its vdisk: up to 255 of A-Z a-z 0-9 _ . : + -',
  examples: ['golden'],
});
export const SnapshotName = Type.String({
  pattern: `^${NAME}@${NAME}$`,
  description: 'vdisk@snapshot',
  examples: ['golden@v1'],
});
export const AnyName = Type.String({
  pattern: `^${NAME}(@${NAME})?$`,
  description: 'vdisk or vdisk@snapshot',
  examples: ['golden'],
});
