"""The usual names of columns, by what they mean."""

#: Usual names, in plain form (no case, spaces, underscores, dashes); an earlier group is preferred to a later one, and
#: two columns of one group are ambiguous.
CUSTOMER = (
    "customerid customeruniqueid customerno customernumber customernr customerkey customercode customerref custid custno "
    "shopcustomerid",
    "customer cust",
    "userid clientid memberid buyerid shopperid consumerid householdid householdkey accountid contactid cardid",
    "user client member buyer shopper consumer household account",
    "customeremail useremail clientemail buyeremail emailaddress email",
)
TIME = (
    "invoicedate orderdate purchasedate transactiondate transdate txndate trandate saledate salesdate orderedat orderedon "
    "purchasedat orderpurchasetimestamp ordertimestamp purchasetimestamp transactiontimestamp orderdatetime "
    "invoicedatetime transactiondatetime purchasedatetime ordertime purchasetime transactiontime invoicetime",
    "date datetime timestamp",
    "createdat created createdon creationdate datecreated placedat",
    "paidat processedat completedat time day ts eventtime",
)
AMOUNT = (
    "amount totalamount orderamount ordertotal grandtotal ordervalue purchaseamount transactionamount salesamount "
    "saleamount salesvalue invoiceamount invoicetotal netamount grossamount amountpaid totalpaid linetotal lineamount "
    "linerevenue totalcents amountcents totalprice transactionvalue purchasevalue amountspent totalsales totalspent "
    "total revenue sales spend spent spending turnover netsales netrevenue grossrevenue",
    "value paymentvalue monetaryvalue monetary subtotal",
)
QUANTITY = ("quantity qty quantityordered orderquantity itemquantity units numberofitems", "lineitemquantity")
PRICE = ("unitprice price itemprice priceperunit priceeach salesprice saleprice", "lineitemprice")

#: All of them.
USUAL = frozenset(" ".join((*CUSTOMER, *TIME, *AMOUNT, *QUANTITY, *PRICE)).split())
