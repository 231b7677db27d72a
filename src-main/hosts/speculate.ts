/** Speculative decoding of a model, measured against the same model without a draft on the same backend. */
import { expected, InputError } from '../contract/input-error.ts';
import type { SpeculationRow } from '../contract/model.ts';
import type { PointConfig } from '../contract/sweep.ts';
import { resolvePoint } from '../engine/plan.ts';
import { BackendFailure } from '../engine/ports.ts';
import { corpusDocument } from '../models/corpus.ts';
import type { SpeculateResult } from '../worker/addon-types.ts';
import type { Supervisor } from '../worker/supervisor.ts';
import { openModel } from './model-backend.ts';

export interface SpeculateOptions {
  readonly model: string;
  readonly target: string;
  readonly drafts: readonly string[];
  readonly draftTokens: readonly number[];
  readonly contexts: readonly number[];
  readonly tokens: number;
  readonly temperature: number;
  readonly seed: number;
}

const deadlineSeconds = 3600;
const prompts = 2;
/** Nothing is judged here: the text only serves calibration. */
const textLength = 64;

/** A level, perhaps changed: `balanced`, or `near-lossless window=128 sinkTokens=4`. */
export function levelFrom(text: string, model: string): PointConfig {
  const [level = '', ...changes] = text.trim().split(/\s+/);
  const axes = changes.map((change) => {
    const [name, value] = change.split(/=(.*)/s);
    if (!name || value === undefined) throw expected('AXIS=VALUE after a level', 'draft', change);
    return [name, /^\d+(\.\d+)?$/.test(value) ? Number(value) : value] as const;
  });
  const { config, refused } = resolvePoint({ ...Object.fromEntries(axes), level, model, seqLen: textLength });
  if (refused !== undefined) throw new InputError(refused, 'draft');
  return config;
}

export async function speculateModel(
  { model, target, drafts, draftTokens, contexts, tokens, temperature, seed }: SpeculateOptions,
  backend: Supervisor,
  onRow: (row: SpeculationRow) => void = () => undefined,
): Promise<readonly SpeculationRow[]> {
  const targetConfig = levelFrom(target, model);
  const draftConfigs = drafts.map((draft) => [draft, levelFrom(draft, model)] as const);
  const { files, text } = await openModel(targetConfig);
  if (text.haystacks.length === 0 || targetConfig.tokenFile !== undefined)
    throw expected('a model of bytes', 'model', model);
  const rows: SpeculationRow[] = [];
  for (const context of contexts) {
    const most = files.config.maxPositions - tokens - Math.max(...draftTokens) - 2;
    if (context > most)
      throw expected(`at most ${most}, so that ${tokens} more tokens fit the model,`, 'context', context);
    const documents = Array.from({ length: prompts }, (_, i) =>
      Int32Array.from(Buffer.from(corpusDocument(2 * (seed * prompts + i) + 1, context).text, 'latin1')),
    );
    for (const [draft, config] of draftConfigs) {
      for (const gamma of draftTokens) {
        const request = { target: targetConfig, draft: config, draftTokens: gamma, tokens, temperature, seed };
        const head = { context, draft, draftTokens: gamma };
        const row = await backend
          .speculate(files, text, { ...request, plain: true, prompts: documents }, deadlineSeconds)
          .then((result) => ({ ...head, ...figures(result, temperature) }))
          .catch((error: unknown) => {
            if (error instanceof BackendFailure && error.kind === 'refused') return { ...head, refused: error.message };
            throw error;
          });
        rows.push(row);
        onRow(row);
      }
    }
  }
  return rows;
}

function figures(
  result: SpeculateResult,
  temperature: number,
): Omit<SpeculationRow, 'context' | 'draft' | 'draftTokens'> {
  const { rounds, tokens, offered, accepted } = result;
  const plainTokens = result.plainOutput.reduce((sum, list) => sum + list.length, 0);
  const plainTokensPerSecond = plainTokens / result.plainSeconds;
  const tokensPerSecond = tokens / result.seconds;
  const differing = result.output.reduce(
    (sum, list, i) => sum + list.reduce((count, token, t) => count + (token === result.plainOutput[i]?.[t] ? 0 : 1), 0),
    0,
  );
  return {
    tokens,
    tokensPerRound: tokens / rounds,
    acceptedByPlace: offered.map((count, i) => (count === 0 ? 0 : (accepted[i] as number) / count)),
    plainTokensPerSecond,
    tokensPerSecond,
    speedUp: tokensPerSecond / plainTokensPerSecond,
    draftCost: (result.draftSeconds / (rounds * offered.length)) * plainTokensPerSecond,
    verifyCost: (result.verifySeconds / rounds) * plainTokensPerSecond,
    targetCacheBytes: result.targetCacheBytes,
    draftCacheBytes: result.draftCacheBytes,
    ...(temperature === 0 && { differing }),
  };
}
