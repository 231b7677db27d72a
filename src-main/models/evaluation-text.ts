/** The tokens a model is judged on: documents to predict, haystacks to search, and others to fit levels to, which none overlaps. */
import { expected } from '../contract/input-error.ts';
import type { EvaluationText, ModelConfig, Probe } from '../contract/model.ts';
import { readSmallFile } from './config.ts';
import { corpusDocument, haystack } from './corpus.ts';

export interface TextRequest {
  readonly config: ModelConfig;
  readonly seqLen: number;
  readonly seed: number;
  readonly calibrationTokens: number;
  /** For one layer, of as many sequences: no questions are asked then. Absent: for the whole model. */
  readonly batch?: number;
  /** Token ids separated by anything that is no digit; absent: the built-in corpus, one token a byte. */
  readonly tokenFile?: string;
}

/** What the engine expects of a calibration text. */
const calibrationLength = 1024;
const documents = 4;
const haystacks = 4;
/** Facts hidden in each haystack, at even depths; fewer where it is short, since a fact needs some hay around it. */
const mostNeedles = 9;
const charactersPerNeedle = 30;
const largestTokenFile = 2 ** 30;
/** Models of bytes have a token for each, and room for a few special ones; tokenizers begin well above. */
const isByteLevel = ({ vocabSize }: ModelConfig): boolean => vocabSize >= 256 && vocabSize < 1024;

/** @throws InputError where there is no text for the model, or not enough. */
export async function evaluationText(request: TextRequest): Promise<EvaluationText> {
  const { config, seqLen, tokenFile } = request;
  if (seqLen > config.maxPositions)
    throw expected(`at most ${config.maxPositions}, the model's positions,`, 'seqLen', seqLen);
  if (seqLen < 16) throw expected('at least 16 tokens, half of them a prompt,', 'seqLen', seqLen);
  if (tokenFile !== undefined) return fromFile(request, await readTokens(tokenFile));
  if (!isByteLevel(config))
    throw expected('token ids in a file, for a model with a tokenizer of its own,', 'tokenFile', '');
  return fromCorpus(request);
}

const streams = (calibrationTokens: number): number => Math.max(1, Math.ceil(calibrationTokens / calibrationLength));

function fromCorpus({ config, seqLen, seed, calibrationTokens, batch }: TextRequest): EvaluationText {
  // Training took even seeds. The three kinds of text take different odd ones.
  const seedOf = (kind: number, i: number): number => (2 * ((seed % 1_000_000) * 256 + i) + 1 + kind * 2 ** 30) >>> 0;
  const bytes = (text: string): Int32Array => Int32Array.from(Buffer.from(text, 'latin1'));
  // The last question and answer must fit the model's positions too.
  const room = Math.min(seqLen, config.maxPositions - 16);
  const needles = Math.min(mostNeedles, Math.floor(room / charactersPerNeedle));
  const count = needles > 0 && batch === undefined ? haystacks : 0;
  const stacks = Array.from({ length: count }, (_, i) => haystack(seedOf(1, i), room, needles));
  return {
    key: `corpus/${seqLen}/${seed}/${calibrationTokens}/${batch ?? 'whole'}`,
    prompt: Math.floor(seqLen / 2),
    documents: Array.from({ length: batch ?? documents }, (_, i) => bytes(corpusDocument(seedOf(0, i), seqLen).text)),
    haystacks: stacks.map(({ text }) => bytes(text)),
    probes: stacks.map(({ probes }) =>
      probes.map(({ depth, question, answer }): Probe => ({ depth, question: bytes(question), answer: bytes(answer) })),
    ),
    calibration: Array.from({ length: streams(calibrationTokens) }, (_, i) =>
      bytes(corpusDocument(seedOf(2, i), calibrationLength).text),
    ),
  };
}

async function readTokens(path: string): Promise<Int32Array> {
  const text = Buffer.from(await readSmallFile(path, largestTokenFile, 'tokenFile')).toString('latin1');
  const tokens = new Int32Array(text.match(/\d+/g)?.map(Number) ?? []);
  if (tokens.length === 0) throw expected('token ids', `tokenFile ${path}`, 'none');
  return tokens;
}

function fromFile({ seqLen, tokenFile, calibrationTokens, batch }: TextRequest, tokens: Int32Array): EvaluationText {
  const count = streams(calibrationTokens);
  const fits = Math.min(batch ?? documents, Math.floor((tokens.length - count * calibrationLength) / seqLen));
  if (fits < 1) {
    const needed = count * calibrationLength + seqLen;
    throw expected(`at least ${needed} token ids, calibration included,`, `tokenFile ${tokenFile}`, tokens.length);
  }
  const afterDocuments = fits * seqLen;
  let checksum = 0;
  for (const token of tokens) checksum = (Math.imul(checksum, 31) + token) | 0;
  return {
    key: `${tokenFile}/${tokens.length}/${checksum}/${seqLen}/${calibrationTokens}/${batch ?? 'whole'}`,
    prompt: Math.floor(seqLen / 2),
    documents: Array.from({ length: fits }, (_, i) => tokens.slice(i * seqLen, (i + 1) * seqLen)),
    haystacks: [],
    probes: [],
    calibration: Array.from({ length: count }, (_, i) =>
      tokens.slice(afterDocuments + i * calibrationLength, afterDocuments + (i + 1) * calibrationLength),
    ),
  };
}
