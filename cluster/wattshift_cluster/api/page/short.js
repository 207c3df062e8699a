// What lacks at the least, where a cap or a feeder lies below it; the same two words as elsewhere.

import { watts } from "./chart.js";

export function shortWords(one) {
  if (one.shortfall_counted_w === undefined || one.shortfall_counted_w === null) return "";
  return `${watts(one.shortfall_w ?? 0)} asked, ${watts(one.shortfall_counted_w)} counted`;
}
