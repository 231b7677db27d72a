/** A session: what was asked for, on which machine, and every point's outcome. One `*.fmqa` file. */
import { z } from 'zod';
import { controlsSchema, errorSchema, memorySchema, pointSchema, qualitySchema, throughputSchema } from './metrics.ts';
import { measuringSchema, pointConfigSchema, sweepSchema } from './sweep.ts';

/** Raised only when an older reader could misread the file; unknown fields are kept, not refused. */
export const sessionSchemaVersion = 1;

/** A GPU that a session was measured on. Absent fields are not known. */
export const gpuSchema = z.looseObject({
  backend: z.string(),
  name: z.string(),
  computeCapability: z.string(),
  driverCudaVersion: z.string(),
  memoryBytes: z.number(),
  multiprocessors: z.number().int().optional(),
  clockMHz: z.number().optional(),
  temperatureCelsius: z.number().optional(),
  powerLimitWatts: z.number().optional(),
  /** Ceilings measured on it in this run. */
  matrixFlopsPerSecond: z.number(),
  copyBytesPerSecond: z.number(),
});
export type Gpu = z.infer<typeof gpuSchema>;

export const environmentSchema = z.looseObject({
  fastmqaVersion: z.string(),
  gitCommit: z.string().optional(),
  nodeVersion: z.string(),
  os: z.string(),
  cpu: z.string(),
  logicalCores: z.number().int(),
  threads: z.number().int(),
  instructionSet: z.string(),
  buildFlags: z.string(),
  governor: z.string().optional(),
  memoryBytes: z.number(),
  loadAverage1m: z.number(),
  startedAt: z.string(),
  /** Ceilings measured on this machine in this run. */
  fmaFlopsPerSecond: z.number().optional(),
  readBytesPerSecond: z.number().optional(),
  gpus: z.array(gpuSchema).optional(),
});
export type Environment = z.infer<typeof environmentSchema>;

export const sessionHeaderSchema = z.looseObject({
  kind: z.literal('header'),
  schemaVersion: z.number().int().min(1),
  id: z.string(),
  name: z.string(),
  sweep: z.looseObject(sweepSchema.shape),
  measuring: z.looseObject(measuringSchema.shape),
  environment: environmentSchema,
});
export type SessionHeader = z.infer<typeof sessionHeaderSchema>;

/** A point as a later version may have written it: fields unknown here are kept at every depth. */
const storedPointSchema = z.looseObject({
  ...pointSchema.shape,
  config: z.looseObject(pointConfigSchema.shape),
  memory: z.looseObject({ ...memorySchema.shape, kvParts: z.looseObject(memorySchema.shape.kvParts.shape) }).optional(),
  throughput: z.looseObject(throughputSchema.shape).optional(),
  error: z.looseObject(errorSchema.shape).optional(),
  controls: z.looseObject(controlsSchema.shape).optional(),
  quality: z.looseObject(qualitySchema.shape).optional(),
});

/** What people call a session. Written beside the measurements, never into them: the last word on each counts. */
export const labelSchema = z.strictObject({
  name: z
    .string()
    .trim()
    .min(1)
    .max(200)
    .regex(/^[^\p{Cc}]*$/u, 'expected a name in one line')
    .optional(),
  tags: z
    .array(
      z
        .string()
        .trim()
        .min(1)
        .max(40)
        .regex(/^[^\p{Cc},]*$/u, 'expected tags without commas'),
    )
    .max(16)
    .optional(),
});
export type Label = z.infer<typeof labelSchema>;

export const sessionRecordSchema = z.discriminatedUnion('kind', [
  sessionHeaderSchema,
  z.looseObject({ kind: z.literal('point'), point: storedPointSchema }),
  /** A run was taken up again, perhaps elsewhere. */
  z.looseObject({ kind: z.literal('resumed'), environment: environmentSchema }),
  z.looseObject({ kind: z.literal('ended'), how: z.enum(['done', 'stopped', 'cancelled', 'interrupted']) }),
  z.looseObject({
    kind: z.literal('labelled'),
    name: z.string().optional(),
    tags: z.array(z.string()).optional(),
    /** Somebody was told that its program ended before it did, and need not be told again. */
    isCrashKnown: z.boolean().optional(),
  }),
]);
export type SessionRecord = z.infer<typeof sessionRecordSchema>;

export const exportFormats = ['csv', 'json', 'md', 'html', 'parquet'] as const;
export type ExportFormat = (typeof exportFormats)[number];
