/**
 * What stands outside of the store: disk images as backing stores, and what stores publish to each
 * other. See schemas.ts.
 */
import { type Static, Type } from 'typebox';
import { NAME, SnapshotName, VdiskName } from './name-schemas.js';
import { bytes, nullable, oneOf, strict } from './schema-kit.js';

const ImageFormat = oneOf(
  ['raw', 'qcow2'],
  "What the file is; without it, its first bytes decide: say it when the file is a stranger's",
);
export const External = Type.Object({
  format: nullable(
    oneOf(['raw', 'qcow2', 'published'], 'published: a snapshot of another store, and no file'),
  ),
  files: Type.Array(Type.String(), {
    description: 'The image, the one behind it, and so on; or which snapshot of which store',
  }),
  trouble: nullable(Type.String({ description: 'Why they cannot be read, as far as is known' })),
});

const ImagePath = Type.String({
  minLength: 1,
  maxLength: 4096,
  pattern: '^/[^\\u0000]*$',
  description: 'Whole path of the file on the server, in one of its folders of images',
  examples: ['/srv/images/debian.qcow2'],
});
export const CreateExternal = Type.Object(
  { name: VdiskName, path: ImagePath, format: Type.Optional(ImageFormat) },
  strict,
);
export const Relocate = Type.Object(
  {
    path: ImagePath,
    format: Type.Optional(ImageFormat),
    trust: Type.Optional(
      Type.Boolean({
        description: 'The files may look different: the caller knows that they hold the same disk',
      }),
    ),
  },
  strict,
);
const CloneSource = Type.String({
  pattern: `^(${NAME}(@${NAME})?|[^#\\u0000]{1,2000}#${NAME}@${NAME})$`,
  description: 'vdisk@snapshot, or what another store has published: STORE#VDISK@SNAP',
  examples: ['golden@v1', 's3://disks/library#golden@v1'],
});
export const CreateClones = Type.Object(
  { source: CloneSource, names: Type.Array(VdiskName, { minItems: 1, maxItems: 1000 }) },
  strict,
);

export const UnpublishQuery = Type.Object(
  {
    dropHolders: Type.Optional(
      oneOf(['true'], 'Even if other stores read it: they lose what they have not split'),
    ),
  },
  strict,
);
export const Publication = Type.Object({
  name: SnapshotName,
  publishedAs: Type.String({ description: 'What it was called when it was published' }),
  address: Type.String({ description: 'What other stores clone: STORE#VDISK@SNAP' }),
  id: Type.String({ description: 'In the keys of its objects' }),
  sizeBytes: bytes('Size of the snapshot'),
  holders: Type.Array(
    Type.Object({
      store: Type.String({ description: 'Where that store is, as it says' }),
      name: Type.String({ description: 'What the snapshot is called there' }),
    }),
    { description: 'Other stores that read it' },
  ),
});
export const PublicationList = Type.Object({ publications: Type.Array(Publication) });
export type Publication = Static<typeof Publication>;
