import type { Explanation, Prediction } from '../api/types';
import { clip, count, percent, plural, scalar, signed } from '../format';
import { Cell, Child, fold, line, omittedWords, strong, table } from './dom';

/** What a prediction's card carries as data. */
export interface IPredictionData {
  version: number;
  predictions?: Prediction[];
  truth?: string[];
  omitted?: Record<string, number>;
}

/** Of the largest number in the sum: room for float32 networks, not for a wrong method. */
const TOLERANCE = 1e-4;
const SHOWN = 8;

const METHODS: Record<string, string> = {
  exact_shapley: 'Exact Shapley values',
  deeplift: 'DeepLIFT'
};

/** Predictions from their data: all probabilities, and why. */
export function predictionView(data: IPredictionData): Child[] {
  const predictions = data.predictions ?? [];
  const truth = data.truth ?? [];
  const only = predictions[0];
  const parts: Child[] = [];
  if (only === undefined) {
    parts.push(line('No predictions: there was no row.'));
  } else if (predictions.length === 1) {
    parts.push(...one(only, truth[0] ?? null));
  } else {
    parts.push(many(predictions, truth));
  }
  if (data.omitted && Object.keys(data.omitted).length) {
    parts.push(line(omittedWords(data.omitted)));
  }
  return parts;
}

function one(prediction: Prediction, truth: string | null): Child[] {
  const { probabilities, explanation } = prediction;
  const by = ` by ${clip(prediction.model)}:${prediction.version}`;
  const parts: Child[] = [line(strong(likely(prediction, prediction.label)), by)];
  if (truth !== null) {
    const right = truth === prediction.label ? '✓ right' : '✗ wrong';
    parts.push(line(`Truth: ${clip(truth)} ${right}`));
  }
  const labels = Object.keys(probabilities).sort(
    (a, b) => (probabilities[b] ?? 0) - (probabilities[a] ?? 0)
  );
  const rows: Cell[][] = labels.map(label => {
    const value = probabilities[label] ?? 0;
    return [clip(label), percent(value), { bar: value }];
  });
  const columns = ['Class', '>Probability', 'Bar'];
  parts.push(table({ caption: 'Probability of every class', columns, rows, titled: false }));
  if (explanation) {
    parts.push(...explained(explanation));
  }
  return parts;
}

function likely(prediction: Prediction, label: string): string {
  const value = prediction.probabilities[label];
  return value === undefined ? clip(label) : `${clip(label)} ${percent(value)}`;
}

function explained(explanation: Explanation): Child[] {
  const label = clip(explanation.explained_class);
  const all = [...explanation.contributions].sort(
    (a, b) => Math.abs(b.contribution) - Math.abs(a.contribution)
  );
  const entries: [string, string, number][] = all
    .slice(0, SHOWN)
    .map(part => [clip(part.feature), scalar(part.value), part.contribution]);
  const others = all.slice(SHOWN);
  if (others.length) {
    const together = others.reduce((sum, part) => sum + part.contribution, 0);
    entries.push([plural(others.length, 'other'), '', together]);
  }
  if (!addsUp(explanation) && explanation.residual) {
    entries.push(['not attributed by the method', '', explanation.residual]);
  }
  const longest = Math.max(...entries.map(entry => Math.abs(entry[2])), 0) || 1;
  const rows: Cell[][] = entries.map(([name, value, amount]) => [
    name,
    value,
    signed(amount),
    { bar: Math.abs(amount) / longest, negative: amount < 0 },
    amount === 0 ? 'nothing' : `${amount > 0 ? 'towards' : 'against'} ${label}`
  ]);
  const start = plain(explanation.base_value);
  rows.push([`${start} and all of these`, '', `= ${plain(explanation.output_value)}`, '', sumWords(explanation)]);
  const unit =
    explanation.output_space === 'log_odds'
      ? `Log-odds towards ${label}`
      : `Logit of ${label} above the mean of all classes`;
  const columns = ['Column', '>Value', '>Adds', 'Bar', 'Direction'];
  const parts: Child[] = [
    table({ caption: `${unit}, from ${start}`, columns, rows, titled: false }),
    line(`${METHODS[explanation.method] ?? clip(explanation.method)}. ${clip(explanation.meaning, 400)}`)
  ];
  if (others.length) {
    const rest = others.map(part => [clip(part.feature), scalar(part.value), signed(part.contribution)]);
    const caption = `The ${plural(others.length, 'other')}`;
    parts.push(fold('All of them', table({ caption, columns: columns.slice(0, 3), rows: rest })));
  }
  return parts;
}

/** Whether base value and contributions make the output; the residual does not count. */
export function addsUp(explanation: Explanation): boolean {
  const parts = [explanation.base_value, ...explanation.contributions.map(part => part.contribution)];
  const sum = parts.reduce((total, part) => total + part, 0);
  const largest = Math.max(1, Math.abs(explanation.output_value), ...parts.map(Math.abs));
  return Math.abs(sum - explanation.output_value) <= TOLERANCE * largest;
}

function sumWords(explanation: Explanation): string {
  if (!addsUp(explanation)) {
    return 'with what is not attributed';
  }
  if (explanation.output_space !== 'log_odds') {
    return '✓';
  }
  const probability = 1 / (1 + Math.exp(-explanation.output_value));
  return `✓ ${percent(probability)} ${clip(explanation.explained_class, 40)}`;
}

function plain(value: number): string {
  return signed(value).replace(/^\+/, '');
}

function many(predictions: Prediction[], truth: string[]): HTMLElement {
  const columns = ['>Row', 'Predicted', '>Probability', ...(truth.length ? ['Truth'] : [])];
  const rows = predictions.map((entry, index) => {
    const known = truth[index];
    const right = known === entry.label ? '✓' : '✗';
    return [
      count(index + 1),
      clip(entry.label, 40),
      percent(entry.probabilities[entry.label] ?? 0),
      ...(truth.length ? [known === undefined ? '' : `${clip(known, 40)} ${right}`] : [])
    ];
  });
  return table({ caption: plural(predictions.length, 'prediction'), columns, rows });
}
