/** What the supervisor and the worker say to each other. One table of calls; types of both sides derive from it. */
import { z } from 'zod';
import { controlsSchema, errorSchema, memorySchema, qualitySchema } from '../contract/metrics.ts';
import type { Addon } from './addon-types.ts';

const handle = z.number().int();
const positive = z.number().positive();
const floats = z.instanceof(Float32Array);
const cacheBytes = {
  kvAllocatedBytes: memorySchema.shape.kvAllocatedBytes,
  kvLogicalBytes: memorySchema.shape.kvLogicalBytes,
};

const prepared = {
  handle,
  memory: memorySchema
    .pick({ kvLogicalBytes: true, kvAllocatedBytes: true, kvParts: true, peakBytes: true, extraWeightBytes: true })
    .extend({ cachedTokens: z.number().int().min(0), ownTokens: z.number().int().min(1).optional() }),
  error: errorSchema.omit({ grade: true }),
  work: z.object({ flops: z.number().min(0), bytes: z.number().min(0), tokens: z.number().int().min(1) }),
};

const speculateResult = z.object({
  output: z.array(z.instanceof(Int32Array)),
  plainOutput: z.array(z.instanceof(Int32Array)),
  offered: z.array(z.number().int().min(0)),
  accepted: z.array(z.number().int().min(0)),
  rounds: z.number().int().min(1),
  tokens: z.number().int().min(1),
  seconds: positive,
  plainSeconds: z.number().min(0),
  draftSeconds: positive,
  verifySeconds: positive,
  targetCacheBytes: z.number().int().min(1),
  draftCacheBytes: z.number().int().min(1),
});

const cudaState = {
  clockMHz: z.number().optional(),
  mostClockMHz: z.number().optional(),
  memoryClockMHz: z.number().optional(),
  temperatureCelsius: z.number().optional(),
  powerWatts: z.number().optional(),
  powerLimitWatts: z.number().optional(),
  foreignProcesses: z.number().int().optional(),
  clockReasons: z.array(z.string()).optional(),
};

/** Answers by call. `z.number()` refuses NaN and infinities, so that none of them gets into a row. */
export const answerSchemas = {
  info: z.object({ threads: z.number().int().min(1), instructionSet: z.string(), buildFlags: z.string() }),
  ceilings: z.object({ fmaFlopsPerSecond: positive, readBytesPerSecond: positive }),
  cuda: z.object({
    devices: z.array(
      z.object({
        name: z.string(),
        computeCapability: z.string(),
        multiprocessors: z.number().int().min(1),
        driverCudaVersion: z.string(),
        runtimeCudaVersion: z.string(),
        memoryBytes: z.number().min(0),
        freeBytes: z.number().min(0),
        cacheBytes: z.number().min(0),
        ...cudaState,
      }),
    ),
    reason: z.string().optional(),
  }),
  cudaVitals: z.array(
    z.object({ memoryBytes: z.number().min(0).optional(), freeBytes: z.number().min(0).optional(), ...cudaState }),
  ),
  cudaCeilings: z.object({ matrixFlopsPerSecond: positive, copyBytesPerSecond: positive }),
  conditions: z.object({
    throttledSamples: z.number().int().min(0),
    foreignProcesses: z.number().int().min(0),
    graphNodes: z.number().int().min(0),
  }),
  prepare: z.object({ ...prepared, controls: controlsSchema }),
  prepareModel: z.object({
    ...prepared,
    error: prepared.error.optional(),
    quality: qualitySchema.omit({ perplexityChangePercent: true }).optional(),
    controls: controlsSchema.optional(),
    speculation: speculateResult.optional(),
  }),
  sample: z
    .instanceof(Float64Array)
    .refine((samples) => samples.length > 0, 'no sample')
    .refine((samples) => samples.every((seconds) => Number.isFinite(seconds) && seconds > 0), 'a sample is no time'),
  release: z.undefined(),
  attend: z.object({ out: floats, presentK: floats, presentV: floats }),
  bench: z.array(
    z.object({
      name: z.string(),
      shape: z.string(),
      flops: positive,
      bytes: positive,
      medianSeconds: positive,
      fmaFlopsPerSecond: positive,
      readBytesPerSecond: positive,
    }),
  ),
  logits: floats,
  speculate: speculateResult,
  reach: z.object({
    sequences: z.number().int().min(0),
    tokensOfLast: z.number().int().min(0),
    allocatedBytes: z.number().int().min(0),
    limitBytes: z.number().int().min(0),
  }),
  createLayer: handle,
  forward: z.object({ y: floats, cache: z.object({ ...cacheBytes, tokens: z.number().int().min(0) }) }),
} satisfies Partial<Record<keyof Addon, z.ZodType>>;

export type Call = keyof typeof answerSchemas;
export type Arguments<C extends Call> = Parameters<Addon[C]>;
export type Answer<C extends Call> = z.infer<(typeof answerSchemas)[C]>;

/** `cancel` concerns whatever runs and is not answered; the cancelled call is. */
export type Request =
  | { readonly [C in Call]: { id: number; generation: number; call: C; args: Arguments<C> } }[Call]
  | { readonly call: 'cancel' };

const address = { id: z.number().int(), generation: z.number().int() };
export const replySchema = z.discriminatedUnion('ok', [
  z.object({ ...address, ok: z.literal(true), value: z.unknown() }),
  z.object({ ...address, ok: z.literal(false), code: z.string(), message: z.string() }),
]);
export type Reply = z.infer<typeof replySchema>;
